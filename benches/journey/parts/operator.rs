//! The operator on a real API server: memory, what it does when nothing is to do, how fast it
//! registers, and how it starts.

use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use super::Run;
use crate::cluster::{Cluster, Shops};
use crate::operator::Operator;
use crate::process::Memory;
use crate::product::Provider;
use crate::report::{Target, number};
use crate::roles::text;

const PART: &str = "operator";
/// Who the operator is, in the API server's audit log.
const USER: &str = "bench-operator";
/// Requests a second that the operator allows itself, over all and per channel; as many at once.
const BUDGET: f64 = 50.0;
const CHANNEL_BUDGET: f64 = 5.0;
/// What a channel that was not asked for a while is asked at once.
const CHANNEL_BURST: f64 = 14.0;
const PATIENCE: Duration = Duration::from_mins(10);
/// Seconds after a start in which what was not reachable has been probed once.
const PROBED: u64 = 35;

/// What all measurements use.
struct Bench<'a> {
    run: &'a mut Run,
    cluster: Cluster,
    provider: Provider,
    kubeconfig: PathBuf,
    fleet: Shops,
}

pub fn run(run: &mut Run) -> Result<(), String> {
    let Some(cluster) = Cluster::start()? else {
        let why = "Not measured: etcd and kube-apiserver are not here; `make tools` builds them.";
        run.report.note(PART, why);
        return Ok(());
    };
    let count = run.choose(1_000, 100);
    let many = run.choose(10_000, 300);
    run.report.note(PART, about(count, many));
    let fleet = Shops {
        namespace: "fleet",
        from: 0,
        count,
        keys: "key",
        all_types: true,
    };
    for name in ["fleet", "single", "seven", "rate", "beside", "stuck"] {
        cluster.namespace(name)?;
    }
    let mut bench = Bench {
        provider: Provider::start("still").map_err(text)?,
        kubeconfig: cluster.kubeconfig(USER),
        run,
        cluster,
        fleet,
    };
    bench.fill()?;
    let mut highest = bench.idle()?;
    bench.one_after_another()?;
    bench.many_at_once()?;
    highest = highest.max(bench.drift()?);
    bench.add(
        format!(
            "{} subscriptions: RSS, the highest of all",
            number(count as f64)
        ),
        "MiB",
        highest,
        Some(Target::AtMost(allowed(count))),
    );
    bench.cold(many)?;
    bench.provider.end().map_err(text)
}

fn about(count: usize, many: usize) -> String {
    format!(
        "`bellhop operator` for the whole cluster against kube-apiserver {} and etcd (without fsync) \
         and the instant provider, on whichever core is free. Subscriptions are as by default (all \
         seven types, a Secret and an API key each) but for `driftCheckInterval: 24h`; their public \
         URL is refused without a lookup, and probed again every five minutes. Idle is {PROBED} s after \
         the start, which probes what was not reachable once. A part of the \
         first {} is registered by the operator, its limits to the provider out of the way; the rest, \
         and {} for the start, are copies of these. Reads, writes and CPU are what the API server's audit log, the \
         provider and the kernel say. The limits of requests to the provider are {BUDGET}/s over all, \
         one second's worth of it at once, and {CHANNEL_BUDGET}/s for a channel, {CHANNEL_BURST} at once, as by \
         default.",
        Cluster::version(),
        number(count as f64),
        number(many as f64),
    )
}

/// 64 MiB, and 15 KiB for each.
fn allowed(subscriptions: usize) -> f64 {
    64.0 + subscriptions as f64 * 15.0 / 1024.0
}

impl Bench<'_> {
    fn add(
        &mut self,
        what: impl Into<String>,
        unit: &'static str,
        value: f64,
        target: Option<Target>,
    ) {
        self.run.report.add(PART, what, unit, vec![value], target);
    }

    fn operator(&self, limited: bool) -> Result<Operator, String> {
        let log = self.run.work.join("operator.log");
        Operator::start(&self.kubeconfig, self.provider.address, limited, &log).map_err(text)
    }

    fn memory(operator: &Operator) -> Result<Memory, String> {
        operator.process.memory().map_err(text)
    }

    /// A part of the fleet is registered by the operator, its limits to the provider out of the way;
    /// the rest are copies.
    fn fill(&mut self) -> Result<(), String> {
        let first = Shops {
            count: self.run.choose(100, 20),
            ..self.fleet
        };
        self.cluster.secrets_of(self.fleet)?;
        self.cluster.create(first)?;
        let operator = self.operator(false)?;
        let begun = Instant::now();
        self.cluster.until_ready(first, first.count, PATIENCE)?;
        let took = begun.elapsed().as_secs_f64();
        operator.until_quiet().map_err(text)?;
        let cpu = operator.process.cpu().map_err(text)?.as_secs_f64();
        operator.process.terminate().map_err(text)?;
        let each = first.count as f64;
        self.add("registrations without limits", "/s", each / took, None);
        self.add("CPU of a registration", "ms", cpu * 1e3 / each, None);
        let rest = Shops {
            from: first.count,
            count: self.fleet.count - first.count,
            ..self.fleet
        };
        self.cluster.copies(first, rest, self.provider.address)
    }

    /// Another process finds everything done, and does nothing.
    fn idle(&mut self) -> Result<f64, String> {
        let count = self.fleet.count;
        let operator = self.operator(true)?;
        let ready = operator.until_ready(count).map_err(text)?;
        operator.until_quiet().map_err(text)?;
        thread::sleep(Duration::from_secs(self.run.choose(PROBED, 2)));
        let seconds = self.run.choose(60, 10);
        let name = format!("{} subscriptions", number(count as f64));
        self.add(
            format!("{name}: start to ready"),
            "s",
            ready.as_secs_f64(),
            None,
        );
        let memory = self.watch(&operator, &name, seconds)?;
        operator.process.terminate().map_err(text)?;
        Ok(memory.rss)
    }

    /// An idle operator for some time: CPU, writes, reads of the provider, memory.
    fn watch(&mut self, operator: &Operator, name: &str, seconds: u64) -> Result<Memory, String> {
        let cpu = operator.process.cpu().map_err(text)?;
        let (writes, leases) = self.cluster.writes(USER);
        let asked = self.provider.registry().map_err(text)?;
        let begun = Instant::now();
        thread::sleep(Duration::from_secs(seconds));
        let cpu = operator.process.cpu().map_err(text)?.saturating_sub(cpu);
        let share = cpu.as_secs_f64() / begun.elapsed().as_secs_f64() * 100.0;
        let (all, of_lease) = self.cluster.writes(USER);
        let asked = self.provider.registry().map_err(text)? - asked;
        let other = (all - writes) - (of_lease - leases);
        let memory = Self::memory(operator)?;
        let cpu_target = Some(Target::AtMost(0.5));
        self.add(
            format!("{name}, idle: CPU"),
            "% of a core",
            share,
            cpu_target,
        );
        self.add(
            format!("{name}, idle: writes but of the Lease in {seconds} s"),
            "",
            other as f64,
            Some(Target::AtMost(0.0)),
        );
        self.add(
            format!("{name}, idle: writes of the Lease in {seconds} s"),
            "",
            (of_lease - leases) as f64,
            None,
        );
        self.add(
            format!("{name}, idle: requests to the provider in {seconds} s"),
            "",
            asked as f64,
            None,
        );
        self.add(
            format!("{name}, idle: anonymous memory"),
            "MiB",
            memory.anonymous,
            None,
        );
        Ok(memory)
    }

    /// From apply to Registered, while there is nothing else to do.
    fn one_after_another(&mut self) -> Result<(), String> {
        let operator = self.operator(true)?;
        operator.until_ready(self.fleet.count).map_err(text)?;
        operator.until_quiet().map_err(text)?;
        let rounds = self.run.choose(7, 3);
        for (namespace, all_types) in [("single", false), ("seven", true)] {
            let mut took = Vec::new();
            let mut asked = 0.0;
            for from in 0..rounds {
                let shops = Shops {
                    namespace,
                    from,
                    count: 1,
                    keys: "key",
                    all_types,
                };
                let before = self.provider.registry().map_err(text)?;
                took.push(self.cluster.one(shops)?.as_secs_f64());
                asked = (self.provider.registry().map_err(text)? - before) as f64;
            }
            // The provider answers at once.
            let pace = (asked - CHANNEL_BURST).max(0.0) / CHANNEL_BUDGET;
            let types = if all_types { "seven types" } else { "one type" };
            let what = format!(
                "from apply to Ready, {types}: {asked} requests, {pace:.1} s at the channel's limit"
            );
            let target = Some(Target::AtMost(2.0));
            self.run.report.add(PART, what, "s", took, target);
        }
        operator.process.terminate().map_err(text)
    }

    /// Many new ones at once, then the same beside a channel that gives no answer.
    fn many_at_once(&mut self) -> Result<(), String> {
        let operator = self.operator(true)?;
        let known = self.fleet.count + 2 * self.run.choose(7, 3);
        operator.until_ready(known).map_err(text)?;
        operator.until_quiet().map_err(text)?;
        let count = self.run.choose(70, 20);
        let of = |namespace, keys, count| Shops {
            namespace,
            from: 0,
            count,
            keys,
            all_types: true,
        };
        let alone = self.together(of("rate", "key", count))?;
        self.cluster.secrets_of(of("stuck", "stuck", 1))?;
        self.cluster.create(of("stuck", "stuck", 1))?;
        let beside = self.together(of("beside", "key", count))?;
        // Not to be met again by the measurements that follow.
        let paused = json!({ "metadata": { "annotations": { "bellhop.dev/paused": "true" } } });
        self.cluster.patch(of("stuck", "stuck", 1), &paused)?;
        let name = format!("{count} new subscriptions at once");
        // A few are over before what is measured outweighs how exactly their end is seen.
        let target = self.run.choose(Some(Target::AtMost(1.1)), None);
        let (took, should) = alone;
        self.add(format!("{name}: all Ready"), "s", took, None);
        let what = format!("{name}: of the time that the budget takes");
        self.add(what, "times", took / should, target);
        let what = format!("{name}, beside a stuck channel: of the time that the budget takes");
        self.add(what, "times", beside.0 / beside.1, target);
        operator.process.terminate().map_err(text)
    }

    /// How long a number of new ones take, and how long the budget says that their requests take.
    fn together(&self, shops: Shops) -> Result<(f64, f64), String> {
        self.cluster.secrets_of(shops)?;
        let before = self.provider.registry().map_err(text)?;
        let begun = Instant::now();
        self.cluster.create(shops)?;
        self.cluster.until_ready(shops, shops.count, PATIENCE)?;
        let took = begun.elapsed().as_secs_f64();
        let asked = (self.provider.registry().map_err(text)? - before) as f64;
        Ok((took, (asked - BUDGET).max(1.0) / BUDGET))
    }

    /// Changes all of the fleet, and lets an operator see it, so that the next start finds nothing
    /// new.
    fn take_over(&self, patch: &serde_json::Value) -> Result<(), String> {
        self.cluster.patch(self.fleet, patch)?;
        let operator = self.operator(false)?;
        operator.until_ready(self.known()).map_err(text)?;
        operator.until_quiet().map_err(text)?;
        operator.process.terminate().map_err(text)
    }

    /// All subscriptions once the fleet and those of the other measurements are there.
    fn known(&self) -> usize {
        self.fleet.count + 2 * self.run.choose(7, 3) + 2 * self.run.choose(70, 20) + 1
    }

    /// All rules are looked at again and again, and nothing is found.
    fn drift(&mut self) -> Result<f64, String> {
        let interval = self.run.choose("3m", "1m");
        let patch = json!({ "spec": { "registration": { "driftCheckInterval": interval } } });
        self.take_over(&patch)?;
        // Only a start spreads the looks over the interval.
        let operator = self.operator(false)?;
        operator.until_ready(self.known()).map_err(text)?;
        operator.until_quiet().map_err(text)?;
        let cpu = operator.process.cpu().map_err(text)?;
        let asked = self.provider.registry().map_err(text)?;
        let writes = self.cluster.writes(USER);
        let begun = Instant::now();
        thread::sleep(Duration::from_secs(self.run.choose(60, 20)));
        let cpu = operator.process.cpu().map_err(text)?.saturating_sub(cpu);
        let cpu = cpu.as_secs_f64();
        let asked = (self.provider.registry().map_err(text)? - asked) as f64;
        let rate = asked / begun.elapsed().as_secs_f64();
        let now = self.cluster.writes(USER);
        let memory = Self::memory(&operator)?;
        operator.process.terminate().map_err(text)?;
        if asked < 1.0 {
            return Err("no drift check took place".to_owned());
        }
        self.add("drift checks: reads of rules", "/s", rate, None);
        let each = cpu * 1e6 / asked;
        self.add("drift checks: CPU of a read", "µs", each, None);
        let other = (now.0 - writes.0) - (now.1 - writes.1);
        let target = Some(Target::AtMost(0.0));
        let what = "drift checks: writes but of the Lease";
        self.add(what, "", other as f64, target);
        self.add("during drift checks: RSS", "MiB", memory.rss, None);
        let patch = json!({ "spec": { "registration": { "driftCheckInterval": "24h" } } });
        self.take_over(&patch)?;
        Ok(memory.rss)
    }

    /// A start with many subscriptions that are all registered.
    fn cold(&mut self, many: usize) -> Result<(), String> {
        let copies = Shops {
            from: self.fleet.count,
            count: many - self.fleet.count,
            ..self.fleet
        };
        self.cluster.secrets_of(copies)?;
        self.cluster
            .copies(self.fleet, copies, self.provider.address)?;
        let known = self.known() + copies.count;
        let asked = self.provider.registry().map_err(text)?;
        let operator = self.operator(true)?;
        let ready = operator.until_ready(known).map_err(text)?;
        let quiet = operator.until_quiet().map_err(text)?;
        let cpu = operator.process.cpu().map_err(text)?;
        let asked = self.provider.registry().map_err(text)? - asked;
        let name = format!("{} subscriptions", number(many as f64));
        self.add(
            format!("{name}: start to ready"),
            "s",
            ready.as_secs_f64(),
            Some(Target::AtMost(30.0)),
        );
        self.add(
            format!("{name}: start until all are looked through"),
            "s",
            quiet.as_secs_f64(),
            None,
        );
        self.add(
            format!("{name}: CPU of the start"),
            "s",
            cpu.as_secs_f64(),
            None,
        );
        // What falls due in that time, spread over a day, thrice.
        let due = many as f64 * 7.0 * quiet.as_secs_f64() / 86_400.0;
        self.add(
            format!("{name}: requests to the provider during the start"),
            "",
            asked as f64,
            Some(Target::AtMost((3.0 * due + 7.0).ceil())),
        );
        thread::sleep(Duration::from_secs(self.run.choose(PROBED, 2)));
        let memory = self.watch(&operator, &name, self.run.choose(30, 10))?;
        self.add(
            format!("{name}: RSS"),
            "MiB",
            memory.rss,
            Some(Target::AtMost(allowed(many))),
        );
        operator.process.terminate().map_err(text)
    }
}

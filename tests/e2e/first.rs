//! The first minute of a subscription, and what its pod is like.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::kubectl::eventually;
use crate::process;
use crate::shop::{NAME, Shop, is_ready};
use crate::world::World;

/// From `kubectl apply` to the first event at a consumer, with the image on the node.
const FIRST_EVENT: i64 = 20_000;

/// From the container's start to its readiness.
const READY: i64 = 2_000;

const MIB: u64 = 1024 * 1024;

/// The memory of a receiver's pod that has nothing to do, as Kubernetes counts it (the working set,
/// which limits act upon and `kubectl top pod` shows).
const IDLE: u64 = 20 * MIB;

/// All that is resident in its process. Most of it are pages of the program, which are on the node
/// once for all of its receivers and can be read again at any time. 20 MiB are wanted and 19.8 are
/// measured; the half more is for a kernel that maps some pages more around those that are used.
const RESIDENT: u64 = 20 * MIB + MIB / 2;

/// How often memory is looked at, a second between.
const SAMPLES: usize = 25;

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    i64::try_from(since.as_millis()).unwrap()
}

/// `2026-01-02T03:04:05Z` as seconds.
fn seconds(time: &Value) -> i64 {
    time.as_str()
        .unwrap()
        .parse::<jiff::Timestamp>()
        .unwrap()
        .as_second()
}

/// All seven types, every kind of consumer, and the rule URLs as the provider needs them.
pub fn from_apply_to_the_first_event(world: &World) {
    let provider = world.provider();
    let shop = Shop::open(world, "first");
    shop.kubectl("wait pod/orders --for=condition=Ready --timeout=30s");
    let applied = now_ms();
    shop.subscribe(|object| {
        object["spec"]
            .as_object_mut()
            .unwrap()
            .remove("notifications");
    });
    let first = |service: &'static str| {
        eventually("the first event", 60, || {
            let seen = shop.seen(service)?;
            seen.first_at().ok_or_else(|| "no event".to_owned())
        })
    };
    for service in ["feed-consumer", "orders"] {
        let took = first(service) - applied;
        println!("from apply to the first event at {service}: {took} ms");
        assert!(took < FIRST_EVENT, "{service}: {took} ms");
    }
    shop.until_ready();
    let rules = provider.rules();
    assert_eq!(rules.len(), 7, "{rules:?}");
    let base = format!(
        "https://{NAME}.{}.svc.cluster.local:8080/redeam/",
        shop.namespace
    );
    for (kind, rule) in &rules {
        assert_eq!(rule["disabled"], json!(false), "{kind}");
        assert!(
            rule["url"].as_str().unwrap().starts_with(&base),
            "{kind}: {}",
            rule["url"]
        );
    }
    // The rest of the catalogue comes with the first resync.
    shop.until_equal(&provider.truth(&["supplier", "product", "rate"]), 60);
    // And what is notified, over TLS.
    let before = provider.counts();
    provider.load(2);
    let counts = provider.counts().since(before);
    assert_eq!(
        (counts.delivered, counts.never),
        (counts.made, 0),
        "{counts:?}"
    );
    shop.until_equal(&provider.owed(), 30);
    shop.unsubscribe();
    assert!(provider.rules().is_empty(), "{:?}", provider.rules());
    shop.close();
}

/// Readiness, memory, and that the pod and what guards it are as documented.
pub fn what_a_pod_is_like(world: &World) {
    let provider = world.provider();
    let shop = Shop::open(world, "pod");
    shop.subscribe(|_| {});
    shop.until_ready();
    // A pod that finds its keys: the first one has to wait for them.
    let uid = shop.receiver()["metadata"]["uid"].clone();
    shop.kubectl(&format!("delete pod {NAME}-0"));
    let (pod, took) = until_ready_again(world, &shop, &uid);
    println!("ready {took} ms after the start of the container");
    assert!(took < READY, "{took} ms");

    assert_eq!(pod["spec"]["automountServiceAccountToken"], json!(false));
    let policy = shop.get(&format!("networkpolicy {NAME}"));
    let ports = policy["spec"]["ingress"].as_array().unwrap().iter();
    let ports: Vec<_> = ports.map(|rule| rule["ports"][0]["port"].clone()).collect();
    assert_eq!(ports, ["public", "feed", "admin"], "{policy}");
    assert_eq!(
        policy["spec"]["ingress"][0]["from"],
        Value::Null,
        "the public port is public"
    );
    assert_eq!(
        policy["spec"]["ingress"][1]["from"],
        json!([{ "podSelector": {} }])
    );
    assert!(policy["spec"]["ingress"][2]["from"].is_array(), "{policy}");

    shop.until_equal(&provider.truth(&["rate"]), 60);
    let (working_set, resident) = most_memory(world, &shop);
    let mib = |bytes: u64| bytes as f64 / MIB as f64;
    println!(
        "idle: {:.1} MiB working set, {:.1} MiB resident",
        mib(working_set),
        mib(resident)
    );
    assert!(
        working_set <= IDLE,
        "{working_set} bytes in its working set"
    );
    assert!(resident <= RESIDENT, "{resident} bytes resident");
    shop.unsubscribe();
    shop.close();
}

/// The pod after this one when it is ready, and the milliseconds since its container started.
///
/// Kubernetes stamps both in whole seconds. So readiness is when somebody who asks without a pause
/// sees it, which is a little later than it is so; and the start is the kernel's, to a hundredth of
/// a second. The kernel of another cluster's node cannot be asked: there it is the difference of the
/// stamps, which may be less than a second too long or too short.
fn until_ready_again(world: &World, shop: &Shop<'_>, before: &Value) -> (Value, i64) {
    let waiting = Instant::now();
    let pod = loop {
        let named = shop.find(&format!("pod {NAME}-0"));
        if let Some(pod) = named.filter(|pod| &pod["metadata"]["uid"] != before && is_ready(pod)) {
            break pod;
        }
        assert!(
            waiting.elapsed().as_secs() < 60,
            "no other receiver is ready"
        );
    };
    if world.cluster.own {
        let age = age_ms(process::of(&pod).unwrap());
        return (pod, age);
    }
    let started = &pod["status"]["containerStatuses"][0]["state"]["running"]["startedAt"];
    let mut conditions = pod["status"]["conditions"].as_array().unwrap().iter();
    let ready = conditions.find(|one| one["type"] == "Ready").unwrap();
    let seconds = seconds(&ready["lastTransitionTime"]) - seconds(started);
    (pod, seconds * 1_000)
}

/// For how long a process has run: the kernel counts both in hundredths of a second since the boot.
fn age_ms(pid: u32) -> i64 {
    let uptime = read("/proc/uptime".to_owned()).unwrap();
    let uptime: f64 = uptime.split(' ').next().unwrap().parse().unwrap();
    let stat = read(format!("/proc/{pid}/stat")).unwrap();
    // Its name, in parentheses, may have blanks.
    let behind = stat.rsplit_once(')').unwrap().1;
    let started: f64 = behind.split_whitespace().nth(19).unwrap().parse().unwrap();
    ((uptime - started / 100.0) * 1_000.0) as i64
}

/// The most of each that an idle receiver has over a while in which the operator asks it once: what
/// it answers with is resident from then on.
fn most_memory(world: &World, shop: &Shop<'_>) -> (u64, u64) {
    // What the kubelet tells of a new pod comes late.
    let sample = || eventually("memory is told", 60, || memory(world, shop));
    let samples: Vec<(u64, u64)> = std::iter::repeat_with(sample).take(SAMPLES).collect();
    let most = |of: fn(&(u64, u64)) -> u64| samples.iter().map(of).max().unwrap_or_default();
    (most(|one| one.0), most(|one| one.1))
}

/// The receiver's working set and what is resident, in bytes: as the kernel counts them where the pod
/// runs on this machine, else as the kubelet tells.
fn memory(world: &World, shop: &Shop<'_>) -> Result<(u64, u64), String> {
    std::thread::sleep(Duration::from_secs(1));
    let pod = shop.receiver();
    if world.cluster.own {
        let pid = process::of(&pod).ok_or("no process")?;
        let status = read(format!("/proc/{pid}/status"))?;
        let resident = field(&status, "VmRSS:").ok_or("no VmRSS")? * 1024;
        return Ok((working_set(pid)?, resident));
    }
    let node = pod["spec"]["nodeName"].as_str().unwrap().to_owned();
    let path = format!("/api/v1/nodes/{node}/proxy/stats/summary");
    let summary = world.cluster.kubectl.get_raw(&path)?;
    let pods = summary["pods"].as_array().cloned().unwrap_or_default();
    let uid = &pod["metadata"]["uid"];
    let found = pods.iter().find(|one| &one["podRef"]["uid"] == uid);
    let found = found.map(|one| &one["containers"][0]["memory"]);
    let bytes = |name: &str| found.and_then(|one| one[name].as_u64());
    bytes("workingSetBytes")
        .zip(bytes("rssBytes"))
        .ok_or_else(|| "the kubelet does not tell yet".to_owned())
}

/// What a process' control group uses without the pages of files that nobody used lately, as the
/// kubelet computes it.
fn working_set(pid: u32) -> Result<u64, String> {
    let groups = read(format!("/proc/{pid}/cgroup"))?;
    let path = |prefix: &str| {
        let mut lines = groups.lines();
        let line = lines.find(|line| line.split(':').nth(1) == Some(prefix))?;
        line.splitn(3, ':').nth(2)
    };
    let (folder, usage, inactive) = match path("memory") {
        Some(path) => (
            format!("/sys/fs/cgroup/memory{path}"),
            "memory.usage_in_bytes",
            "total_inactive_file",
        ),
        None => (
            format!("/sys/fs/cgroup{}", path("").ok_or("no control group")?),
            "memory.current",
            "inactive_file",
        ),
    };
    let used = read(format!("{folder}/{usage}"))?;
    let used: u64 = used.trim().parse().map_err(|_| used)?;
    let inactive = field(&read(format!("{folder}/memory.stat"))?, inactive);
    Ok(used - inactive.ok_or("no inactive_file")?)
}

fn read(file: String) -> Result<String, String> {
    std::fs::read_to_string(&file).map_err(|error| format!("{file}: {error}"))
}

/// The number behind a name at the begin of a line.
fn field(text: &str, name: &str) -> Option<u64> {
    let mut lines = text.lines().map(str::split_whitespace);
    lines.find_map(|mut words| (words.next() == Some(name)).then(|| words.next()?.parse().ok())?)
}

//! Bellhop on a Kubernetes with real pods: installed by its charts, with the simulated provider and
//! consumers in pods. Oracles: the provider's own state and its record of each delivery, consumers
//! written apart from Bellhop in another language, and what Kubernetes itself says.
//!
//! One scenario after the other, on one cluster; each has a namespace of its own. Arguments choose
//! scenarios by parts of their names. What cannot run says `skipped: why`, and fails with CI=true.
//!
//! What is not shown here: that a NetworkPolicy is enforced (this network enforces none; the objects
//! are checked), that a file system grows with its claim, and a second node.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod account;
mod backup;
mod chart;
mod cluster;
mod deletion;
mod ending;
mod exposure;
mod first;
mod forward;
mod kubectl;
mod load;
mod operator;
mod process;
mod provider;
mod reload;
mod shop;
#[path = "../it/skip.rs"]
mod skip;
mod upgrade;
mod walk;
mod world;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use cluster::Cluster;
use world::World;

/// A scenario: a name, and what it does. It fails by a panic.
type Scenario = (&'static str, fn(&World));

/// The one that needs no cluster, and is never left out.
const ACCOUNT: &str = "account::a_lost_notification_is_noticed";

/// The one that comes before there is a cluster.
const ENDING: &str = "ending::a_killed_run_leaves_nothing";

/// The one that comes after all others, on a user's cluster.
const TAKEN_AWAY: &str = "world::a_users_cluster_is_as_before";

/// All scenarios, on the project's own cluster, when image and tools are built.
const WHOLE: Duration = Duration::from_mins(15);

const SCENARIOS: [Scenario; 13] = [
    (
        "walk::the_readme_is_what_happens",
        walk::the_readme_is_what_happens,
    ),
    (
        "first::from_apply_to_the_first_event",
        first::from_apply_to_the_first_event,
    ),
    ("first::what_a_pod_is_like", first::what_a_pod_is_like),
    (
        "reload::a_new_key_and_other_settings_need_no_restart",
        reload::a_new_key_and_other_settings_need_no_restart,
    ),
    (
        "load::rotation_rollout_and_eviction",
        load::rotation_rollout_and_eviction,
    ),
    (
        "load::killed_receiver_and_operator",
        load::killed_receiver_and_operator,
    ),
    (
        "deletion::the_volume_is_grown_kept_and_reused",
        deletion::the_volume_is_grown_kept_and_reused,
    ),
    ("deletion::a_namespace_goes", deletion::a_namespace_goes),
    (
        "deletion::operators_are_killed_at_work",
        deletion::operators_are_killed_at_work,
    ),
    (
        "exposure::ingress_and_http_route",
        exposure::ingress_and_http_route,
    ),
    (
        "upgrade::another_image_rolls_everything",
        upgrade::another_image_rolls_everything,
    ),
    (
        "chart::receivers_are_asked_through_the_api_server",
        chart::receivers_are_asked_through_the_api_server,
    ),
    (
        "chart::tested_kept_and_uninstalled",
        chart::tested_kept_and_uninstalled,
    ),
];

fn main() -> ExitCode {
    if std::env::var_os(ending::HOLD).is_some() {
        return ending::hold();
    }
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let filters: Vec<&String> = arguments
        .iter()
        .filter(|one| !one.starts_with('-'))
        .collect();
    let chosen =
        |name: &str| filters.is_empty() || filters.iter().any(|part| name.contains(part.as_str()));
    let (account, ending) = (chosen(ACCOUNT), chosen(ENDING));
    let chosen: Vec<&Scenario> = SCENARIOS.iter().filter(|(name, _)| chosen(name)).collect();
    let none = !account && !ending && chosen.is_empty();
    if none || arguments.iter().any(|one| one == "--list") {
        return ExitCode::SUCCESS;
    }
    let mut tally = Tally::new();
    if account && !tally.attempt(ACCOUNT, account::a_lost_notification_is_noticed)
        || !ending && chosen.is_empty()
    {
        return tally.told(None);
    }
    if std::env::var("E2E").as_deref() != Ok("yes") {
        println!("skipped: the tests on a cluster with real pods; run `make e2e`");
        return tally.told(None);
    }
    if ending && let Err(why) = try_ending(&mut tally) {
        return skipped(&why);
    }
    if chosen.is_empty() {
        return tally.told(None);
    }
    let cluster = match Cluster::start() {
        Ok(cluster) => cluster,
        Err(why) => return skipped(&why),
    };
    let mut world = World::new(cluster);
    for &(name, scenario) in chosen {
        if !tally.attempt(name, || scenario(&world)) {
            world.clean();
        }
    }
    let limit = (world.cluster.own && filters.is_empty()).then_some(WHOLE);
    if !world.cluster.own {
        tally.attempt(TAKEN_AWAY, || world.take_away());
    }
    world.cluster.end();
    tally.told(limit)
}

/// What is about a cluster that a run starts itself.
fn try_ending(tally: &mut Tally) -> Result<(), String> {
    if Cluster::is_of_user() {
        println!("not for a user's cluster: {ENDING}");
    } else if Cluster::is_to_be_started()? {
        tally.attempt(ENDING, ending::a_killed_run_leaves_nothing);
    } else {
        let why = "a cluster runs already; `make cluster-down` ends it";
        tally.attempt(ENDING, || skip::without(why));
    }
    Ok(())
}

/// For want of a cluster; a failure where CI=true.
fn skipped(why: &str) -> ExitCode {
    println!("skipped: the tests on a cluster with real pods: {why}");
    if std::env::var("CI").as_deref() == Ok("true") {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}

/// What became of the scenarios.
struct Tally {
    begun: Instant,
    passed: usize,
    failed: Vec<&'static str>,
}

impl Tally {
    fn new() -> Self {
        Self {
            begun: Instant::now(),
            passed: 0,
            failed: Vec::new(),
        }
    }

    /// Runs one, and says whether it passed.
    fn attempt(&mut self, name: &'static str, scenario: impl FnOnce() + Send) -> bool {
        println!("scenario {name} ...");
        let at = Instant::now();
        // A panic of the scenario ends its thread alone.
        let ended = std::thread::scope(|scope| scope.spawn(scenario).join());
        let seconds = at.elapsed().as_secs_f32();
        if ended.is_ok() {
            println!("scenario {name} ... ok, {seconds:.1} s");
            self.passed += 1;
        } else {
            println!("scenario {name} ... FAILED, {seconds:.1} s");
            self.failed.push(name);
        }
        ended.is_ok()
    }

    /// What became of all, in the time that they may take.
    fn told(&self, limit: Option<Duration>) -> ExitCode {
        let took = self.begun.elapsed();
        println!(
            "e2e: {} of {} scenarios passed, {:.0} s",
            self.passed,
            self.passed + self.failed.len(),
            took.as_secs_f32()
        );
        let late = limit.is_some_and(|limit| took >= limit);
        if late {
            println!("failed: the whole takes {} s or more", WHOLE.as_secs());
        }
        if !self.failed.is_empty() {
            println!("failed: {}", self.failed.join(", "));
        }
        if late || !self.failed.is_empty() {
            ExitCode::FAILURE
        } else {
            ExitCode::SUCCESS
        }
    }
}

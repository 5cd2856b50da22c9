//! The model test: the real pipeline, deliverers and engine core under thousands of schedules.
//!
//! A *schedule* is made from a seed alone: what changes at the provider, how its answers and
//! notifications are late, old, lost or repeated, when the process dies, how clocks step, and which
//! task runs next. Then all faults end, and every consumer must hold what the provider has.
//!
//! - `BELLHOP_MODEL_SCHEDULES=1000000` runs so many (2,000 without it);
//! - `BELLHOP_MODEL_FIRST=5001` begins with that seed (1 without it);
//! - `BELLHOP_MODEL_SEED=7` runs that one schedule and prints its trace.
//!
//! The oracle is `truth`: what the provider has and had. The second test shows that it can fail:
//! each planted bug must be caught.

mod changes;
mod consumer;
mod disk;
mod plan;
mod provider;
mod schedule;
mod sender;
mod sim;
mod truth;

use std::sync::Mutex;

use schedule::Report;

const SCHEDULES: u64 = 2_000;
/// After so many that failed, no more are run.
const MOST_FAILED: usize = 20;
/// Schedules in which each planted bug must be caught.
const BUG_SCHEDULES: u64 = 2_000;
/// Lines of a trace that are printed.
const TRACE: usize = 400;

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    let number = text.parse();
    Some(number.unwrap_or_else(|_| panic!("{variable} must be a number, not {text:?}")))
}

/// The words for a schedule that failed: it is run again, with its trace.
fn account(report: &Report) -> String {
    let again = schedule::run(report.seed, true);
    let skipped = again.trace.len().saturating_sub(TRACE);
    format!(
        "seed {}: {}\n  again: BELLHOP_MODEL_SEED={} cargo test --features planted-bugs model::\n\
         {}trace ({skipped} earlier lines left out):\n{}",
        report.seed,
        report.failure.as_deref().unwrap_or("no failure"),
        report.seed,
        if again.hash == report.hash {
            ""
        } else {
            "(it did not run the same again)\n"
        },
        again.trace[skipped..].join("\n"),
    )
}

#[test]
fn every_consumer_ends_with_what_the_provider_has() {
    if let Some(seed) = number("BELLHOP_MODEL_SEED") {
        let report = schedule::run(seed, true);
        println!("{}", report.trace.join("\n"));
        assert_eq!(report.failure, None, "seed {seed}");
        return;
    }
    let schedules = number("BELLHOP_MODEL_SCHEDULES").unwrap_or(SCHEDULES);
    let first = number("BELLHOP_MODEL_FIRST").unwrap_or(1);
    let sums = Mutex::new((0, 0, 0));
    let failed: Mutex<Vec<Report>> = Mutex::default();
    in_parallel(first..first + schedules, |seed| {
        let report = schedule::run(seed, false);
        let mut sums = sums.lock().unwrap();
        sums.0 += report.notifications;
        sums.1 += report.reads;
        sums.2 += report.crashes;
        let mut failed = failed.lock().unwrap();
        if let Some(failure) = &report.failure {
            println!("seed {seed}: {failure}");
            failed.push(report);
        }
        failed.len() < MOST_FAILED
    });
    let failed = failed.into_inner().unwrap();
    if let Some(report) = failed.first() {
        panic!(
            "{} schedules failed; one of them:\n{}",
            failed.len(),
            account(report)
        );
    }
    let (notifications, reads, crashes) = sums.into_inner().unwrap();
    println!(
        "{schedules} schedules: {notifications} notifications, {reads} reads, {crashes} crashes"
    );
}

/// Does `work` for all items, on as many threads as the machine has, until it says no.
fn in_parallel<T: Send>(
    items: impl IntoIterator<Item = T, IntoIter: Send>,
    work: impl Fn(T) -> bool + Sync,
) {
    let items = Mutex::new(items.into_iter());
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let Some(item) = items.lock().unwrap().next() else {
                        return;
                    };
                    if !work(item) {
                        return;
                    }
                }
            });
        }
    });
}

#[test]
fn a_seed_runs_the_same_twice() {
    for seed in 1..=20 {
        let (one, other) = (schedule::run(seed, false), schedule::run(seed, true));
        assert_eq!(one.hash, other.hash, "seed {seed}");
    }
}

/// A model that catches nothing proves nothing: each planted bug must be caught.
#[cfg(feature = "planted-bugs")]
#[test]
fn every_planted_bug_is_caught() {
    use bellhop::planted::{Bug, plant};

    let only = std::env::var("BELLHOP_MODEL_BUG").ok();
    let most = BUG_SCHEDULES;
    let missed = Mutex::new(Vec::new());
    let chosen = |bug: &Bug| only.as_ref().is_none_or(|only| *only == format!("{bug:?}"));
    in_parallel(Bug::ALL.into_iter().filter(chosen), |bug| {
        plant(Some(bug));
        let caught = (1..=most)
            .map(|seed| schedule::run(seed, false))
            .find(|report| report.failure.is_some());
        plant(None);
        match caught {
            Some(report) => println!(
                "{bug:?}: caught by schedule {}: {}",
                report.seed,
                report.failure.unwrap_or_default()
            ),
            None => missed.lock().unwrap().push(bug),
        }
        true
    });
    let missed = missed.into_inner().unwrap();
    assert!(
        missed.is_empty(),
        "not caught in {most} schedules: {missed:?}"
    );
}

//! The model test: the real pipeline, deliverers and engine core under thousands of schedules.
//!
//! A *schedule* is made from a seed alone: what changes at the provider, how its answers and
//! notifications are late, old, lost or repeated, when the process dies, how clocks step, and which
//! task runs next. Then all faults end, and every consumer must hold what the provider has.
//!
//! - `BELLHOP_MODEL_SCHEDULES=1000000` runs so many (2,000 without it);
//! - `BELLHOP_MODEL_SEED=7` runs that one schedule and prints its trace.
//!
//! The oracle is `truth`: what the provider has and had. The second test shows that it can fail:
//! each planted bug must be caught.

mod consumer;
mod disk;
mod provider;
mod schedule;
mod sim;
mod truth;

use schedule::Report;

const SCHEDULES: u64 = 2_000;
/// After so many that failed, no more are run.
const MOST_FAILED: usize = 20;
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
    let (mut reads, mut notifications, mut crashes) = (0, 0, 0);
    let mut failed: Vec<Report> = Vec::new();
    for seed in 1..=schedules {
        let report = schedule::run(seed, false);
        reads += report.reads;
        notifications += report.notifications;
        crashes += report.crashes;
        if let Some(failure) = &report.failure {
            println!("seed {seed}: {failure}");
            failed.push(report);
            if failed.len() == MOST_FAILED {
                break;
            }
        }
    }
    if let Some(first) = failed.first() {
        panic!(
            "{} schedules failed, the first:\n{}",
            failed.len(),
            account(first)
        );
    }
    println!(
        "{schedules} schedules: {notifications} notifications, {reads} reads, {crashes} crashes"
    );
}

#[test]
fn a_seed_runs_the_same_twice() {
    for seed in 1..=20 {
        let (one, other) = (schedule::run(seed, false), schedule::run(seed, true));
        assert_eq!(one.hash, other.hash, "seed {seed}");
    }
}

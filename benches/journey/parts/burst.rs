//! A burst for one entity, through the real program: how often it is fetched, and what the
//! consumer holds in the end.

use super::{Run, Shot, consume};
use crate::arguments::argument;
use crate::product::{Provider, Setup};
use crate::provider::LAST_STEP;
use crate::report::Target;
use crate::roles::text;

const PART: &str = "burst";
/// How long to wait for reads after the burst: longer than any second look.
const AFTER: f64 = 10.0;

pub fn run(run: &mut Run) -> Result<(), String> {
    let rounds = run.choose(5, 1);
    run.report.note(
        PART,
        format!(
            "`bellhop run` with default settings; {rounds} rounds of 10,000 notifications for one \
             entity within a second, on 16 connections. The provider's state changes every 100 ms \
             meanwhile, for the last time in the last tenth. Reads are counted until {AFTER} s after \
             the burst; \"newest\" is 1 when the last event that the SSE consumer got is the \
             provider's last state.",
        ),
    );
    let (mut fetches, mut newest, mut took) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..rounds {
        let provider = Provider::start("steps").map_err(text)?;
        let setup = Setup {
            data: run.work.join(round.to_string()),
            requests_per_second: 10,
            size: "1Gi",
            all_types: false,
        };
        let product = setup.start(provider.address).map_err(text)?;
        // The notification that showed that it runs is about this very entity: let it settle.
        std::thread::sleep(std::time::Duration::from_secs(8));
        let before = provider.reads().map_err(text)?;
        let shot = Shot {
            address: product.public,
            connections: 16,
            seconds: 30.0,
            // Well inside a second, the last answer included.
            rate: Some(12_500.0),
            names: vec![argument("random", 1)],
            at_most: Some(10_000),
        };
        let seen = consume(&shot, product.feed, Some(provider.address), AFTER)?;
        fetches.push((provider.reads().map_err(text)? - before) as f64);
        newest.push(f64::from(u8::from(seen.last_version == Some(LAST_STEP))));
        took.push(seen.seconds);
        product.process.terminate().map_err(text)?;
        provider.end().map_err(text)?;
    }
    run.report.add(PART, "time of the burst", "s", took, None);
    run.report
        .add(PART, "fetches", "", fetches, Some(Target::AtMost(3.0)));
    run.report.add(
        PART,
        "consumer holds the newest state",
        "",
        newest,
        Some(Target::AtLeast(1.0)),
    );
    Ok(())
}

//! From notification to consumer, through the real program.

use super::{Run, Shot, consume};
use crate::arguments::argument;
use crate::plot::{Axis, Chart, Line};
use crate::product::{Provider, Setup};
use crate::report::Target;
use crate::roles::text;

const PART: &str = "consumer";
const RATE: f64 = 500.0;
/// Each is named again only after 40 s: `minInterval` does not come in, and each event answers
/// one notification.
const ENTITIES: u64 = 20_000;

pub fn run(run: &mut Run) -> Result<(), String> {
    let (rounds, seconds) = (run.choose(3, 1), run.choose(30.0, 10.0));
    run.report.note(
        PART,
        format!(
            "`bellhop run` with a budget of 1,000 reads/s and an instant provider; {rounds} rounds of \
             {seconds} s at {RATE} notifications/s (open loop, 16 connections, each for another of \
             {ENTITIES} entities). The latency is from when a notification was due to be sent to its \
             event at a consumer of the feed (SSE).",
        ),
    );
    let (mut p50, mut p99, mut worst, mut missing) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut lines = Vec::new();
    for round in 0..rounds {
        let provider = Provider::start("rising").map_err(text)?;
        let setup = Setup {
            data: run.work.join(round.to_string()),
            requests_per_second: 1000,
            size: "1Gi",
            all_types: false,
        };
        let product = setup.start(provider.address).map_err(text)?;
        let shot = Shot {
            address: product.public,
            connections: 16,
            seconds,
            rate: Some(RATE),
            names: vec![argument("from", 1), argument("of", ENTITIES)],
            at_most: None,
        };
        let seen = consume(&shot, product.feed, None, 2.0)?;
        p50.push(seen.quantile(0.5));
        p99.push(seen.quantile(0.99));
        worst.push(seen.quantile(1.0));
        missing.push(seen.other as f64);
        lines.push(Line {
            name: format!("round {}", round + 1),
            points: super::tail(&seen),
        });
        product.process.terminate().map_err(text)?;
        provider.end().map_err(text)?;
    }
    run.report.add(PART, "p50", "ms", p50, None);
    run.report
        .add(PART, "p99", "ms", p99, Some(Target::AtMost(50.0)));
    run.report.add(PART, "highest", "ms", worst, None);
    run.report.add(
        PART,
        "notifications without an event",
        "",
        missing,
        Some(Target::AtMost(0.0)),
    );
    run.report.charts.push(Chart {
        part: PART,
        name: "notification-to-consumer",
        title: "From notification to consumer at 500/s".to_owned(),
        x_label: "quantile",
        y_label: "ms",
        x: super::quantiles(),
        y: Axis::Log,
        lines,
    });
    Ok(())
}

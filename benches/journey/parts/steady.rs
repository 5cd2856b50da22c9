//! Ten minutes at half load, open loop, through the real program: latency, and whether memory grows.

use std::thread;
use std::time::{Duration, Instant};

use super::{Run, Shot, finished};
use crate::arguments::argument;
use crate::machine::Witness;
use crate::plot::{Axis, Chart, Line};
use crate::product::{Provider, Setup};
use crate::report::{Target, number};
use crate::roles::text;

const PART: &str = "steady";
/// Entities that are named: their marks are all there is of backlog.
const ENTITIES: u64 = 50_000;
/// Notifications after which marks, ledger and caches are as full as they get: what grows after
/// that grows for ever.
const FILLS: u64 = 300_000;
/// MiB that do not count as growth: samples of a busy heap move that much.
const TOLERANCE: f64 = 2.0;

pub fn run(run: &mut Run) -> Result<(), String> {
    let seconds = run.choose(600.0, 30.0);
    // A short run is over before marks and ledger are full: it says nothing about growth.
    let growth_target = run.choose(Some(Target::AtMost(TOLERANCE)), None);
    let provider = Provider::start("rising").map_err(text)?;
    let setup = Setup {
        data: run.work.join("data"),
        requests_per_second: 100,
        size: "1Gi",
        all_types: false,
    };
    let product = setup.start(provider.address).map_err(text)?;
    let shot = |seconds, rate, at_most| Shot {
        address: product.public,
        connections: 64,
        seconds,
        rate,
        names: vec![argument("random", ENTITIES)],
        at_most,
    };
    let most = run.choose(FILLS, FILLS / 10);
    let fullest = shot(60.0, None, Some(most)).fire()?;
    let half = fullest.rate() / 2.0;
    run.report.note(
        PART,
        format!(
            "`bellhop run` with a 1 GiB store and a budget of 100 reads/s; first {} \
             notifications in closed loop at 64 connections, which show the highest rate and fill \
             marks, ledger and caches, then {seconds} s of open loop at half of that, {}/s, \
             for {} entities at random. A latency counts from when its notification was due. \
             Meanwhile a block of another file on the same disk is written over and synced ten times \
             a second: a stall that it shows as well is the disk's. Growth is the median RSS of the \
             last tenth less that of the second tenth.",
            number(most as f64),
            number(half),
            number(ENTITIES as f64),
        ),
    );
    println!("  {seconds} s at {half:.0}/s");
    let witness = Witness::start(&run.work);
    let load = shot(seconds, Some(half), None).start()?;
    let started = Instant::now();
    let (mut rss, mut anonymous) = (Vec::new(), Vec::new());
    while started.elapsed().as_secs_f64() < seconds {
        let memory = product.process.memory().map_err(text)?;
        let at = started.elapsed().as_secs_f64();
        rss.push((at, memory.rss));
        anonymous.push((at, memory.anonymous));
        thread::sleep(Duration::from_secs(1));
    }
    let answered = finished(load)?;
    let (sync_p99, sync_highest) = witness.end()?;
    product.process.terminate().map_err(text)?;
    provider.end().map_err(text)?;
    let report = &mut run.report;
    report.add(
        PART,
        "highest rate, closed loop",
        "/s",
        vec![fullest.rate()],
        None,
    );
    report.add(PART, "rate, open loop", "/s", vec![answered.rate()], None);
    report.add(PART, "p50", "ms", vec![answered.quantile(0.5)], None);
    report.add(
        PART,
        "p99",
        "ms",
        vec![answered.quantile(0.99)],
        Some(Target::AtMost(10.0)),
    );
    report.add(
        PART,
        "p99.9",
        "ms",
        vec![answered.quantile(0.999)],
        Some(Target::AtMost(50.0)),
    );
    report.add(PART, "highest", "ms", vec![answered.quantile(1.0)], None);
    report.add(
        PART,
        "another file on the disk meanwhile: p99 of a sync",
        "ms",
        vec![sync_p99],
        None,
    );
    report.add(
        PART,
        "another file on the disk meanwhile: longest sync",
        "ms",
        vec![sync_highest],
        None,
    );
    let tenth = rss.len().div_ceil(10).max(1);
    let median = |samples: &[(f64, f64)]| {
        let mut values: Vec<f64> = samples.iter().map(|(_, value)| *value).collect();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
    };
    let early = rss.get(tenth..2 * tenth).unwrap_or(&rss);
    let late = &rss[rss.len() - tenth..];
    let growth = median(late) - median(early);
    report.add(PART, "RSS at the end", "MiB", vec![median(late)], None);
    report.add(PART, "growth of RSS", "MiB", vec![growth], growth_target);
    report.charts.push(Chart {
        part: PART,
        name: "latency-quantiles",
        title: format!(
            "Latency of an accept at half load ({}/s, open loop)",
            number(half)
        ),
        x_label: "quantile",
        y_label: "ms",
        x: super::quantiles(),
        y: Axis::Log,
        lines: vec![Line {
            name: "Bellhop".to_owned(),
            points: super::tail(&answered),
        }],
    });
    report.charts.push(Chart {
        part: PART,
        name: "memory-over-time",
        title: "Memory at half load".to_owned(),
        x_label: "seconds",
        y_label: "MiB",
        x: Axis::Linear,
        y: Axis::Linear,
        lines: vec![
            Line {
                name: "RSS".to_owned(),
                points: rss,
            },
            Line {
                name: "anonymous".to_owned(),
                points: anonymous,
            },
        ],
    });
    Ok(())
}

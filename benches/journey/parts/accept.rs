//! Durable accept against the two references: rate, latency, CPU, bytes on disk.

use std::collections::BTreeMap;
use std::path::Path;

use super::{Run, Shot, cpu_micros};
use crate::answered::Answered;
use crate::arguments::argument;
use crate::plot::{Axis, Chart, Line};
use crate::process::{Core, Process};
use crate::report::Target;
use crate::roles::text;
use crate::stores;

const PART: &str = "accept";
const CONNECTIONS: [usize; 4] = [1, 16, 64, 256];
/// Just under the marks that a store holds by default: each notification names another entity.
const AT_MOST: u64 = 190_000;

/// Who is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Server {
    Bare,
    Fsync,
    Bellhop,
}

/// One server under one load.
struct Sample {
    answered: Answered,
    cpu_micros: f64,
    /// Bytes that went to the disk, and that stayed there, per notification.
    written: f64,
    kept: f64,
}

pub fn run(run: &mut Run) -> Result<(), String> {
    let (rounds, seconds) = (run.choose(5, 3), run.choose(5.0, 2.0));
    run.report.note(
        PART,
        format!(
            "{rounds} rounds of {seconds} s for each server and number of connections, closed loop, \
             over plain HTTP/1.1 on loopback. (a) is bare axum; (b) is the same plus an HMAC check \
             and an append with one `fdatasync` per waiting batch. Bellhop is its receiver and store \
             with the default size of 1 GiB, empty at each start; every notification is signed \
             (HMAC-SHA256), names another entity, and leaves a journal row and a mark. At 64 \
             connections also the same with 1,000 entities, most of which have a mark already.",
        ),
    );
    let mut samples: BTreeMap<(usize, Server), Vec<Sample>> = BTreeMap::new();
    let mut marked = Vec::new();
    let order = [Server::Bare, Server::Fsync, Server::Bellhop];
    for round in 0..rounds {
        println!("  round {} of {rounds}", round + 1);
        for connections in CONNECTIONS {
            for turn in 0..order.len() {
                let server = order[(turn + round) % order.len()];
                let names = argument("from", 0);
                let sample = one(run, server, connections, seconds, names)?;
                println!(
                    "    {connections:>3} connections, {server:?}: {:.0}/s, p99 {:.2} ms, {:.1} µs CPU",
                    sample.answered.rate(),
                    sample.answered.quantile(0.99),
                    sample.cpu_micros
                );
                samples
                    .entry((connections, server))
                    .or_default()
                    .push(sample);
            }
        }
        let names = argument("random", 1000);
        marked.push(one(run, Server::Bellhop, 64, seconds, names)?);
    }
    report(run, &samples, &marked);
    Ok(())
}

/// Starts a server with nothing in its store, loads it, ends it.
fn one(
    run: &Run,
    server: Server,
    connections: usize,
    seconds: f64,
    names: String,
) -> Result<Sample, String> {
    run.clean().map_err(text)?;
    let mut process = start(server, &run.work).map_err(text)?;
    let address = process.address().map_err(text)?;
    let shot = |from: Option<u64>, at_most| Shot {
        address,
        connections,
        seconds,
        rate: None,
        names: vec![from.map_or_else(|| names.clone(), |from| argument("from", from))],
        at_most: Some(at_most),
    };
    // Warm: connections, pages, the first growth of every table.
    let warm = shot(Some(1 << 40), 2000).fire()?;
    let (cpu, written) = (
        process.cpu().map_err(text)?,
        process.written().map_err(text)?,
    );
    let answered = shot(None, AT_MOST).fire()?;
    let cpu_micros = cpu_micros(cpu, process.cpu().map_err(text)?, &answered);
    let written = process.written().map_err(text)? - written;
    process.end().map_err(text)?;
    let kept = stores::bytes(&run.work).map_err(text)?;
    let count = answered.ok.max(1) as f64;
    Ok(Sample {
        cpu_micros,
        written: written as f64 / count,
        kept: kept as f64 / (count + warm.ok as f64),
        answered,
    })
}

fn start(server: Server, work: &Path) -> std::io::Result<Process> {
    match server {
        Server::Bare => Process::role("bare", Core::Server, &[]),
        Server::Fsync => {
            let file = argument("file", work.join("appended").display());
            Process::role("fsync", Core::Server, &[file])
        }
        Server::Bellhop => {
            let store = argument("store", work.display());
            Process::role("bellhop", Core::Server, &[store])
        }
    }
}

fn report(run: &mut Run, samples: &BTreeMap<(usize, Server), Vec<Sample>>, marked: &[Sample]) {
    let of = |connections: usize, server: Server, take: fn(&Sample) -> f64| -> Vec<f64> {
        samples
            .get(&(connections, server))
            .map_or_else(Vec::new, |found| found.iter().map(take).collect())
    };
    let ratio = |connections: usize, to: Server| -> Vec<f64> {
        let own = of(connections, Server::Bellhop, |s| s.answered.rate());
        let other = of(connections, to, |s| s.answered.rate());
        own.iter()
            .zip(other)
            .map(|(own, other)| own / other)
            .collect()
    };
    let report = &mut run.report;
    for connections in CONNECTIONS {
        let target = (connections > 1).then_some(Target::AtLeast(0.6));
        let what = format!("Bellhop / (b), {connections} connections");
        report.add(PART, what, "", ratio(connections, Server::Fsync), target);
    }
    for connections in CONNECTIONS {
        for (name, server) in [
            ("(a)", Server::Bare),
            ("(b)", Server::Fsync),
            ("Bellhop", Server::Bellhop),
        ] {
            let rates = of(connections, server, |s| s.answered.rate());
            report.add(
                PART,
                format!("{name}, {connections} connections: rate"),
                "/s",
                rates,
                None,
            );
        }
    }
    let marked_rate = marked.iter().map(|s| s.answered.rate()).collect();
    report.add(
        PART,
        "Bellhop, 64 connections, marked entities: rate",
        "/s",
        marked_rate,
        None,
    );
    for connections in CONNECTIONS {
        for (name, server) in [("(b)", Server::Fsync), ("Bellhop", Server::Bellhop)] {
            let what = |which| format!("{name}, {connections} connections: {which}");
            let p50 = of(connections, server, |s| s.answered.quantile(0.5));
            report.add(PART, what("p50"), "ms", p50, None);
            let p99 = of(connections, server, |s| s.answered.quantile(0.99));
            let target =
                (server == Server::Bellhop && connections == 64).then_some(Target::AtMost(15.0));
            report.add(PART, what("p99"), "ms", p99, target);
        }
    }
    for connections in CONNECTIONS {
        for (name, server) in [
            ("(a)", Server::Bare),
            ("(b)", Server::Fsync),
            ("Bellhop", Server::Bellhop),
        ] {
            let what = format!("{name}, {connections} connections: CPU per notification");
            report.add(
                PART,
                what,
                "µs",
                of(connections, server, |s| s.cpu_micros),
                None,
            );
        }
    }
    let kept = of(64, Server::Bellhop, |s| s.kept);
    report.add(
        PART,
        "on disk per notification, its mark included",
        "bytes",
        kept,
        None,
    );
    let marked_kept = marked.iter().map(|s| s.kept).collect();
    report.add(
        PART,
        "on disk per notification of a marked entity",
        "bytes",
        marked_kept,
        None,
    );
    let written = of(64, Server::Bellhop, |s| s.written);
    report.add(
        PART,
        "written to disk per notification, 64 connections",
        "bytes",
        written,
        None,
    );
    let line = |name: &str, server| Line {
        name: name.to_owned(),
        points: CONNECTIONS
            .iter()
            .map(|&connections| {
                let mut rates = of(connections, server, |s| s.answered.rate());
                rates.sort_by(f64::total_cmp);
                (
                    connections as f64,
                    rates.get(rates.len() / 2).copied().unwrap_or(0.0),
                )
            })
            .collect(),
    };
    report.charts.push(Chart {
        part: PART,
        name: "rate-by-connections",
        title: "Notifications per second by connections (median)".to_owned(),
        x_label: "connections",
        y_label: "notifications / s",
        x: Axis::Places(
            CONNECTIONS
                .iter()
                .map(|&c| (c as f64, c.to_string()))
                .collect(),
        ),
        y: Axis::Linear,
        lines: vec![
            line("Bellhop: verified and durable", Server::Bellhop),
            line("(b) HMAC + fdatasync per batch", Server::Fsync),
            line("(a) bare axum", Server::Bare),
        ],
    });
}

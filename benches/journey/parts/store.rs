//! How accept, start, memory and size grow with the store.

use std::path::PathBuf;

use super::{Run, Shot, cpu_micros};
use crate::arguments::argument;
use crate::plot::{Axis, Chart, Line};
use crate::process::{Core, Process};
use crate::product::{Provider, Setup};
use crate::report::{Target, number};
use crate::roles::text;
use crate::stores::{self, SIZE, SIZE_BYTES};

const PART: &str = "store";
/// Marks that a server here may hold: nobody works them off, and memory is not measured.
const BACKLOG: u64 = 2_000_000;

/// Entities and journal rows.
struct Level {
    entities: u64,
    rows: u64,
    work: PathBuf,
    rates: Vec<f64>,
    p99: Vec<f64>,
    cpu: Vec<f64>,
}

impl Level {
    fn name(&self) -> String {
        match self.entities {
            0 => "empty".to_owned(),
            _ => format!("{} entities", number(self.entities as f64)),
        }
    }
}

pub fn run(run: &mut Run) -> Result<(), String> {
    let shapes = run.choose(
        [(0, 0), (100_000, 1_000_000), (1_000_000, 10_000_000)],
        [(0, 0), (20_000, 200_000), (100_000, 1_000_000)],
    );
    let mut levels = Vec::new();
    for (entities, rows) in shapes {
        let work = run.work.join(entities.to_string());
        if entities > 0 {
            run.stores.copy(entities, rows, &work.join("store"))?;
        }
        levels.push(Level {
            entities,
            rows,
            work,
            rates: Vec::new(),
            p99: Vec::new(),
            cpu: Vec::new(),
        });
    }
    let (rounds, seconds) = (run.choose(5, 3), run.choose(5.0, 2.0));
    let [_, middle, big] = shapes;
    run.report.note(
        PART,
        format!(
            "Three stores: empty, {} entities with {} journal rows, and {} entities with {} journal \
             rows, each filled through the engine, {SIZE} as size setting (a quarter of which the \
             journal may take). Accept: {rounds} rounds of {seconds} s at 64 connections, each \
             notification naming one of a million entities at random. Start: `bellhop run` from its \
             start to its first 200, with its files out of the page cache (cold), and again after \
             kill -9.",
            number(middle.0 as f64),
            number(middle.1 as f64),
            number(big.0 as f64),
            number(big.1 as f64),
        ),
    );
    for level in &levels {
        starts(run, level)?;
    }
    accept(&mut levels, rounds, seconds)?;
    report(run, &levels);
    for level in levels.iter().filter(|level| level.entities > 0) {
        sizes(run, level)?;
    }
    Ok(())
}

/// Starts the program on the store: cold, after kill -9, and what it needs of memory.
fn starts(run: &mut Run, level: &Level) -> Result<(), String> {
    let provider = Provider::start("still").map_err(text)?;
    let setup = Setup {
        data: level.work.clone(),
        requests_per_second: 10,
        size: SIZE,
        all_types: false,
    };
    let store = level.work.join("store");
    std::fs::create_dir_all(&store).map_err(text)?;
    let (mut cold, mut crashed, mut rss) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..run.choose(3, 1) {
        if !stores::make_cold(&store).map_err(text)? {
            println!("  note: `dd iflag=nocache` does not work here; this start is warm");
        }
        let product = setup.start(provider.address).map_err(text)?;
        cold.push(product.took.as_secs_f64());
        // Some journal for the restart to read, and no time to tidy up.
        let shot = Shot {
            address: product.public,
            connections: 64,
            seconds: 1.0,
            rate: None,
            names: vec![argument("random", 10_000)],
            at_most: Some(20_000),
        };
        shot.fire()?;
        product.process.kill().map_err(text)?;
        let product = setup.start(provider.address).map_err(text)?;
        crashed.push(product.took.as_secs_f64());
        rss.push(product.process.memory().map_err(text)?.rss);
        product.process.terminate().map_err(text)?;
    }
    provider.end().map_err(text)?;
    let name = level.name();
    let target = (level.entities > 0).then_some(Target::AtMost(5.0));
    run.report
        .add(PART, format!("{name}: start, cold"), "s", cold, target);
    run.report.add(
        PART,
        format!("{name}: start after kill -9"),
        "s",
        crashed,
        target,
    );
    run.report.add(
        PART,
        format!("{name}: resident after the start"),
        "MiB",
        rss,
        None,
    );
    Ok(())
}

fn accept(levels: &mut [Level], rounds: usize, seconds: f64) -> Result<(), String> {
    let mut servers = Vec::new();
    for level in &*levels {
        let arguments = [
            argument("store", level.work.join("store").display()),
            argument("size", SIZE_BYTES),
            argument("backlog", BACKLOG),
        ];
        let mut server = Process::role("bellhop", Core::Server, &arguments).map_err(text)?;
        let address = server.address().map_err(text)?;
        servers.push((server, address));
    }
    let shot = |address, seconds| Shot {
        address,
        connections: 64,
        seconds,
        rate: None,
        names: vec![argument("random", 1_000_000)],
        at_most: None,
    };
    for (_, address) in &servers {
        shot(*address, 0.5).fire()?;
    }
    let count = levels.len();
    for round in 0..rounds {
        for turn in 0..count {
            let at = (turn + round) % count;
            let (server, address) = &servers[at];
            let before = server.cpu().map_err(text)?;
            let answered = shot(*address, seconds).fire()?;
            let after = server.cpu().map_err(text)?;
            let level = &mut levels[at];
            level.rates.push(answered.rate());
            level.p99.push(answered.quantile(0.99));
            level.cpu.push(cpu_micros(before, after, &answered));
            println!(
                "  round {}, {}: {:.0}/s",
                round + 1,
                level.name(),
                answered.rate()
            );
        }
    }
    for (server, _) in servers {
        server.end().map_err(text)?;
    }
    Ok(())
}

fn report(run: &mut Run, levels: &[Level]) {
    let empty = &levels[0].rates;
    let big = levels.last().map_or(0, |level| level.entities);
    for level in levels {
        let name = level.name();
        if level.entities > 0 {
            let ratios = level
                .rates
                .iter()
                .zip(empty)
                .map(|(own, empty)| own / empty)
                .collect();
            let target = (level.entities == big).then_some(Target::AtLeast(0.7));
            run.report.add(
                PART,
                format!("{name}: accept / accept when empty"),
                "",
                ratios,
                target,
            );
        }
        run.report.add(
            PART,
            format!("{name}: accept rate"),
            "/s",
            level.rates.clone(),
            None,
        );
        run.report.add(
            PART,
            format!("{name}: accept p99"),
            "ms",
            level.p99.clone(),
            None,
        );
        run.report.add(
            PART,
            format!("{name}: CPU per notification"),
            "µs",
            level.cpu.clone(),
            None,
        );
    }
    let median = |values: &[f64]| {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        sorted.get(sorted.len() / 2).copied().unwrap_or(0.0)
    };
    let places = levels.iter().map(|level| {
        let label = match level.entities {
            0 => "empty".to_owned(),
            _ => format!(
                "{} / {} rows",
                number(level.entities as f64),
                number(level.rows as f64)
            ),
        };
        (level.entities as f64, label)
    });
    let points = levels
        .iter()
        .map(|level| (level.entities as f64, median(&level.rates)));
    run.report.charts.push(Chart {
        part: PART,
        name: "rate-by-store",
        title: "Durable accepts per second by size of the store (64 connections, median)"
            .to_owned(),
        x_label: "entities / journal rows in the store",
        y_label: "notifications / s",
        x: Axis::Places(places.collect()),
        y: Axis::Linear,
        lines: vec![Line {
            name: "Bellhop".to_owned(),
            points: points.collect(),
        }],
    });
}

/// What rows take on disk, table by table.
fn sizes(run: &mut Run, level: &Level) -> Result<(), String> {
    let pristine = level.work.join("sizes");
    run.stores.copy(level.entities, level.rows, &pristine)?;
    let tables = stores::tables(&stores::database(&pristine)?)?;
    let of = |names: &[&str]| -> f64 {
        let sizes = tables
            .iter()
            .filter(|(name, _)| names.contains(&name.as_str()));
        sizes.map(|(_, bytes)| *bytes as f64).sum()
    };
    let name = level.name();
    let all: u64 = tables.iter().map(|(_, bytes)| bytes).sum();
    let total = all as f64 / f64::from(1 << 20);
    run.report.add(
        PART,
        format!("{name}: whole store"),
        "MiB",
        vec![total],
        None,
    );
    let per_row = of(&["journal"]) / level.rows as f64;
    run.report.add(
        PART,
        format!("{name}: per journal row"),
        "bytes",
        vec![per_row],
        None,
    );
    let per_entity = of(&["entities", "events", "settlements"]) / level.entities as f64;
    let what = format!("{name}: per entity (its row, newest event of 1 KB, one settlement)");
    run.report.add(PART, what, "bytes", vec![per_entity], None);
    std::fs::remove_dir_all(&pristine).map_err(text)
}

//! `make bench`: what Bellhop costs and how fast it is, against what is possible on this machine.
//!
//! Owns: the choice of parts and the order of a run. Each part measures in rounds; in each round
//! everything that is compared is measured, in an order that rotates, so that a ratio is between
//! neighbours in time. Servers and load are processes of their own, each pinned to a core
//! ([`process`]). A missed target is marked and is no failure; not being able to measure is one.
//!
//! Never here: a number that is not measured in the same run; code of the product.

mod answered;
mod arguments;
mod cluster;
mod consumer;
mod fill;
mod load;
mod machine;
mod operator;
mod parts;
mod plot;
mod process;
mod product;
mod provider;
mod reference;
mod report;
mod roles;
mod stores;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use machine::Machine;
use parts::{PARTS, Run};
use report::Report;
use roles::text;

const HELP: &str = "\
make bench BENCH_ARGS=\"[--quick] [--keep-stores] [--no-docs] [PART...]\"

Without parts: all of them. --quick (or BENCH_QUICK=1): a few minutes with small stores, for
development. --keep-stores: filled stores stay in target/bench/stores and are used again.
A full run of all parts also writes docs/performance.md and its plots, unless --no-docs is given.

Parts:";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args()
        .skip(1)
        // Cargo says so to every bench.
        .filter(|word| word != "--bench")
        .collect();
    let result = match words.first().and_then(|word| word.strip_prefix("role:")) {
        Some(role) => roles::run(role, &words[1..]),
        None => bench(&words),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("bench: {problem}");
            ExitCode::FAILURE
        }
    }
}

/// What was asked for.
struct Wanted {
    quick: bool,
    keep_stores: bool,
    docs: bool,
    parts: Vec<String>,
}

fn wanted(words: &[String]) -> Result<Option<Wanted>, String> {
    let quick = std::env::var("BENCH_QUICK").is_ok_and(|value| !value.is_empty() && value != "0");
    let mut wanted = Wanted {
        quick,
        keep_stores: false,
        docs: true,
        parts: Vec::new(),
    };
    for word in words {
        match word.as_str() {
            "--quick" => wanted.quick = true,
            "--keep-stores" => wanted.keep_stores = true,
            "--no-docs" => wanted.docs = false,
            "--help" | "-h" => return Ok(None),
            part if PARTS.iter().any(|known| known.name == part) => {
                wanted.parts.push(part.to_owned());
            }
            other => return Err(format!("there is no part `{other}`; --help lists them")),
        }
    }
    Ok(Some(wanted))
}

/// What others, and the parts before, left to be written must not be written while a part measures.
fn settle() {
    if std::process::Command::new("sync").status().is_err() {
        println!("note: no `sync` here; what others left to be written may disturb");
    }
}

fn bench(words: &[String]) -> Result<(), String> {
    let Some(wanted) = wanted(words)? else {
        println!("{HELP}");
        for part in PARTS {
            println!("  {:<10} {}", part.name, part.about);
        }
        return Ok(());
    };
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| root.join("target"), PathBuf::from)
        .join("bench");
    std::fs::create_dir_all(&folder).map_err(text)?;
    let machine = Machine::look(&folder, process::can_pin()).map_err(text)?;
    if machine.load_before > 0.5 {
        println!(
            "note: load average {:.2}; others are busy here",
            machine.load_before
        );
    }
    let started = Instant::now();
    let mut run = Run {
        quick: wanted.quick,
        stores: stores::Stores::new(folder.join("stores")),
        work: folder.join("work"),
        report: Report::new(machine, wanted.quick),
    };
    let docs = wanted.docs && !wanted.quick && wanted.parts.is_empty();
    let chosen: Vec<_> = PARTS
        .iter()
        .filter(|part| wanted.parts.is_empty() || wanted.parts.iter().any(|name| name == part.name))
        .collect();
    run.report.pending = chosen.iter().map(|part| part.name).collect();
    for part in chosen {
        println!(
            "[{:>4} s] {}: {}",
            started.elapsed().as_secs(),
            part.name,
            part.about
        );
        run.clean().map_err(text)?;
        settle();
        (part.run)(&mut run).map_err(|problem| format!("part `{}`: {problem}", part.name))?;
        run.report.pending.retain(|name| *name != part.name);
        // What was measured so far is not lost when a later part fails.
        run.report.write(&folder).map_err(text)?;
        if docs {
            run.report.write_docs(&root.join("docs")).map_err(text)?;
        }
    }
    run.clean().map_err(text)?;
    if !wanted.keep_stores {
        run.stores.remove().map_err(text)?;
    }
    println!("[{:>4} s] done\n", started.elapsed().as_secs());
    println!("{}", run.report.markdown("."));
    println!(
        "written: {0}/report.md, {0}/report.json and plots",
        folder.display()
    );
    if docs {
        println!("written: docs/performance.md and docs/performance/*.svg");
    }
    if run.report.missed() > 0 {
        println!("{} targets are MISSED, see above", run.report.missed());
    }
    Ok(())
}

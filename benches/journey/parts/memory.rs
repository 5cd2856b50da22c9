//! Memory of the real program: idle, and under way.

use std::thread;
use std::time::Duration;

use super::{Run, Shot, finished};
use crate::arguments::argument;
use crate::process::Memory;
use crate::product::{Product, Provider, Setup};
use crate::report::Target;
use crate::roles::text;

const PART: &str = "memory";

pub fn run(run: &mut Run) -> Result<(), String> {
    let seconds = run.choose(60.0, 10.0);
    run.report.note(
        PART,
        format!(
            "`bellhop run`; RSS is all that is resident, the program's own pages included; \
             \"anonymous\" is the part that no file is behind. Idle: an empty store, all seven types, \
             ten seconds after the start. Under way: 100,000 entities and 1,000,000 journal rows in \
             the store, {seconds} s at 1,000 notifications/s for entities at random, the highest of \
             two samples a second; once with a budget of 1,000 reads/s, which keeps up (the resync \
             that follows a start runs beside it), and once with the default budget of 10/s, which \
             does not: nearly every notification leaves a mark that waits.",
        ),
    );
    idle(run)?;
    under_way(run, "keeping up", 1000, seconds)?;
    under_way(run, "with a growing backlog", 10, seconds)
}

fn idle(run: &mut Run) -> Result<(), String> {
    let provider = Provider::start("still").map_err(text)?;
    let setup = Setup {
        data: run.work.join("idle"),
        requests_per_second: 10,
        size: "1Gi",
        all_types: true,
    };
    let product = setup.start(provider.address).map_err(text)?;
    thread::sleep(Duration::from_secs(run.choose(10, 5)));
    let memory = product.process.memory().map_err(text)?;
    add(run, "idle", memory, 20.0);
    product.process.terminate().map_err(text)?;
    provider.end().map_err(text)
}

fn under_way(run: &mut Run, name: &str, budget: u32, seconds: f64) -> Result<(), String> {
    let provider = Provider::start("rising").map_err(text)?;
    let data = run.work.join(budget.to_string());
    run.stores.copy(100_000, 1_000_000, &data.join("store"))?;
    let setup = Setup {
        data,
        requests_per_second: budget,
        size: "1Gi",
        all_types: false,
    };
    let product = setup.start(provider.address).map_err(text)?;
    let shot = Shot {
        address: product.public,
        connections: 16,
        seconds,
        rate: Some(1000.0),
        names: vec![argument("random", 100_000)],
        at_most: None,
    };
    let load = shot.start()?;
    let highest = watch(&product, seconds)?;
    finished(load)?;
    add(
        run,
        &format!("100,000 entities, 1,000/s, {name}"),
        highest,
        64.0,
    );
    product.process.terminate().map_err(text)?;
    provider.end().map_err(text)
}

/// The highest of what is seen until a load is over.
fn watch(product: &Product, seconds: f64) -> Result<Memory, String> {
    let mut highest = product.process.memory().map_err(text)?;
    for _ in 0..(seconds * 2.0) as u32 {
        thread::sleep(Duration::from_millis(500));
        let memory = product.process.memory().map_err(text)?;
        if memory.rss > highest.rss {
            highest = memory;
        }
    }
    Ok(highest)
}

fn add(run: &mut Run, name: &str, memory: Memory, most: f64) {
    let target = Some(Target::AtMost(most));
    run.report.add(
        PART,
        format!("{name}: RSS"),
        "MiB",
        vec![memory.rss],
        target,
    );
    run.report.add(
        PART,
        format!("{name}: anonymous"),
        "MiB",
        vec![memory.anonymous],
        None,
    );
}

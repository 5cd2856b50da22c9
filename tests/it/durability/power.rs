//! Power loss. A process works on the real engine while `power/recorder.c`, preloaded, writes
//! down every write, truncation, sync, creation and removal. From the record, disks are made as a
//! power cut at any point may leave them ([`disk`]), and opened with the real [`Engine::open`].
//!
//! Oracle: what the process had asked and been answered by then ([`oracle`]), noted in the same
//! record. The record itself is checked: replayed in full, it must give the files as they are.
//!
//! The shared-memory file is not part of what is durable: after a cut it is absent or noise.
//!
//! `BELLHOP_POWER_CUTS` sets the number of cuts (default 250); as many as there are calls in the
//! record, or more, and the power is cut before each one.
//!
//! [`Engine::open`]: bellhop::state::embedded::Engine::open

mod disk;
mod oracle;
mod workload;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use disk::{Disk, Fate, Record};
use oracle::Said;
use workload::{ANSWERS, Note};

/// Claims settled in each half of a life of the recorded process: enough for the write-ahead log
/// to be moved into the file, and begun anew, several times.
const SETTLED: u64 = 150;
const LIVES: u64 = 2;
/// At the beginning of the record, where the store is made, every point is tried.
const CREATION: usize = 120;

#[test]
fn what_was_answered_survives_a_power_cut() {
    let seed = super::seed();
    let Some(record) = recorded(seed) else { return };
    let cuts = super::number("BELLHOP_POWER_CUTS").unwrap_or(250) as usize;
    let (tried, wrong) = cut(&record, cuts, false, seed, usize::MAX);
    println!("{} calls recorded, {tried} cuts", record.len());
    assert!(wrong.is_empty(), "seed {seed}:\n{}", wrong.join("\n"));
}

/// The same with the syncs ignored, as if the engine did not ask for any.
#[test]
fn a_store_without_syncs_is_noticed() {
    let seed = super::seed();
    let Some(record) = recorded(seed) else { return };
    let (_, wrong) = cut(&record, 100, true, seed, 1);
    assert!(!wrong.is_empty(), "seed {seed}: no loss was noticed");
}

/// The process that is recorded: started by the tests above, in a folder of theirs.
#[test]
#[ignore = "is run by the other tests of this module"]
fn recorded_process() {
    let variable = |name: &str| std::env::var(name).ok();
    let (Some(folder), Some(seed), Some(life)) = (
        variable("BELLHOP_RECORD_DIR"),
        super::number("BELLHOP_RECORD_SEED"),
        super::number("BELLHOP_RECORD_LIFE"),
    ) else {
        return;
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(workload::live(Path::new(&folder), seed, life, SETTLED));
}

/// Lets the process live and die, and gives back the record. `None`, said aloud: no compiler.
fn recorded(seed: u64) -> Option<Vec<Record>> {
    let folder = tempfile::tempdir().unwrap();
    let library = folder.path().join("recorder.so");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/durability/power/recorder.c");
    if !compiled(&source, &library) {
        return None;
    }
    let store = folder.path().join("store");
    let log = folder.path().join("record");
    fs::create_dir(&store).unwrap();
    for life in 0..LIVES {
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "durability::power::recorded_process"])
            .args(["--ignored", "--nocapture"])
            .env("LD_PRELOAD", &library)
            .env("BELLHOP_RECORD_DIR", &store)
            .env("BELLHOP_RECORD_LOG", &log)
            .env("BELLHOP_RECORD_SEED", seed.to_string())
            .env("BELLHOP_RECORD_LIFE", life.to_string())
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
    }
    let record = disk::parse(&fs::read(&log).unwrap());
    is_complete(&record, &store);
    Some(record)
}

fn compiled(source: &Path, library: &Path) -> bool {
    let why = if cfg!(target_os = "linux") {
        let output = Command::new("cc")
            .args([
                "-std=gnu11",
                "-O1",
                "-Wall",
                "-Werror",
                "-shared",
                "-fPIC",
                "-pthread",
                "-o",
            ])
            .args([library, source])
            .output();
        match output {
            Ok(output) if output.status.success() => return true,
            Ok(output) => panic!("{}", String::from_utf8_lossy(&output.stderr)),
            Err(_) => "no C compiler `cc` to build the recorder with",
        }
    } else {
        "the recorder is for Linux"
    };
    crate::skip::without(why);
    false
}

/// Whether the record tells everything: replayed, it gives the files as they are.
fn is_complete(record: &[Record], store: &Path) {
    let mut disk = Disk::default();
    for call in record {
        disk.take(call);
    }
    let mut names = 0;
    for (name, content) in durable(disk.seen()) {
        let real = fs::read(store.join(&name)).unwrap();
        assert!(real == content, "the record of {name} is not complete");
        names += 1;
    }
    assert!(names >= 3, "database, log and lock");
    let syncs = record.iter().filter(|call| call.operation == b's').count();
    assert!(syncs > 100, "only {syncs} syncs were recorded");
    let moved = |call: &&Record| call.operation == b'w' && call.name == "bellhop.db";
    let moved = record.iter().filter(moved).count();
    assert!(moved > 100, "only {moved} pages were moved into the file");
}

/// Without the notes, and without what is not durable.
fn durable(mut files: BTreeMap<String, Vec<u8>>) -> BTreeMap<String, Vec<u8>> {
    files.retain(|name, _| name != ANSWERS && !name.ends_with("-shm"));
    files
}

/// Cuts the power at `cuts` points and compares, until `enough` of them were wrong.
fn cut(
    record: &[Record],
    cuts: usize,
    ignores_syncs: bool,
    seed: u64,
    enough: usize,
) -> (usize, Vec<String>) {
    let mut random = fastrand::Rng::with_seed(seed);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let mut points: Vec<usize> = if cuts >= record.len() {
        (0..record.len()).collect()
    } else {
        let anywhere = (0..cuts).map(|_| random.usize(..record.len()));
        anywhere.chain(0..CREATION.min(record.len())).collect()
    };
    points.sort_unstable();
    let mut points = points.into_iter().peekable();
    let mut disk = Disk::default();
    disk.ignores_syncs = ignores_syncs;
    let mut notes: Vec<Note> = Vec::new();
    let (mut tried, mut wrong) = (0, Vec::new());
    for (at, call) in record.iter().enumerate() {
        while points.next_if_eq(&at).is_some() && wrong.len() < enough {
            let fate = Fate::any(&mut random);
            let found = durable(disk.after_cut(fate, &mut random));
            tried += 1;
            let what = runtime.block_on(compare(&found, &notes, &mut random));
            wrong.extend(
                what.into_iter()
                    .map(|what| format!("cut before call {at}, {fate:?}: {what}")),
            );
        }
        disk.take(call);
        if call.name == ANSWERS && call.operation == b'w' {
            notes.push(serde_json::from_slice(&call.data).unwrap());
        }
    }
    (tried, wrong)
}

async fn compare(
    found: &BTreeMap<String, Vec<u8>>,
    notes: &[Note],
    random: &mut fastrand::Rng,
) -> Vec<String> {
    let folder = super::scratch();
    for (name, content) in found {
        fs::write(folder.path().join(name), content).unwrap();
    }
    if random.u8(..4) == 0 {
        let noise: Vec<u8> = std::iter::repeat_with(|| random.u8(..))
            .take(32_768)
            .collect();
        fs::write(folder.path().join("bellhop.db-shm"), noise).unwrap();
    }
    let mut said = Said::default();
    for note in notes {
        said.hear(note);
    }
    said.compare(folder.path()).await
}

//! The store's troubles, as the program tells and survives them. Oracles: the operating system's
//! file system, bytes before and after, the simulator's record of what got which answer.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use bellhop::simulator::{Days, Delivery, Outcome};

use super::rig::{
    Consumer, Finished, LONG, Program, World, contents, eventually, manifest, provider,
};

/// A store of a finished life.
async fn used() -> World {
    let world = World::new(provider()).await;
    let program = world.start("").await;
    program.settled().await;
    program.stop().await;
    world
}

fn start_fails(world: &World, parts: &[&str]) {
    let ended = Finished::of(world.command());
    assert_eq!(ended.code, Some(1), "{}", ended.err);
    let last = ended.err.lines().last().unwrap();
    for part in parts {
        assert!(last.contains(part), "`{part}` is not in: {last}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn locked_by_another_process() {
    let world = World::new(provider()).await;
    let program = world.start("").await;
    program.settled().await;
    let pid = format!("pid {}", program.child.id());
    start_fails(
        &world,
        &[
            "locked by another process",
            &pid,
            "bellhop.lock",
            "stop the other",
        ],
    );
    // The one that has it is not disturbed.
    let rate = world.keys("rate/")[0].clone();
    world.change(&rate);
    world.equal(&program, &mut Consumer::default()).await;
    program.stop().await;
}

/// What one environment lists is not what the other has: all of the store would look removed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_of_the_other_environment_is_refused_and_kept() {
    let world = used().await;
    let file = world.manifest_file();
    let sandbox = std::fs::read_to_string(&file).unwrap();
    let production = sandbox.replace("environment: sandbox", "environment: production");
    assert_ne!(sandbox, production);
    std::fs::write(&file, production).unwrap();
    let store = world.data_dir().join("store");
    let files =
        || ["bellhop.db", "bellhop.db-wal"].map(|name| std::fs::read(store.join(name)).ok());
    let before = files();
    start_fails(&world, &["sandbox", "production", "data folder"]);
    assert!(files() == before, "not even what retention would take");
    // Put right, it goes on with what it has: nothing is removed, and nothing is new.
    let program = world.start("").await;
    let mut consumer = Consumer::default();
    world.equal(&program, &mut consumer).await;
    program.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn newer_foreign_and_damaged_files_are_refused_and_left_alone() {
    let world = used().await;
    let store = world.data_dir().join("store");
    let database = store.join("bellhop.db");
    let whole = std::fs::read(&database).unwrap();
    let log = store.join("bellhop.db-wal");
    // SQLite's own header (sqlite.org/fileformat.html): user_version at 60, application id at 68.
    let with = |at: usize, bytes: &[u8]| {
        let mut copy = whole.clone();
        copy[at..at + bytes.len()].copy_from_slice(bytes);
        copy
    };
    let page = usize::from(u16::from_be_bytes([whole[16], whole[17]]));
    let garbage = vec![0xa5; page];
    let foreign = with(68, &[0, 0, 0, 1]);
    for (bytes, parts) in [
        (
            with(60, &[0, 0, 0x27, 0x10]),
            ["bellhop.db", "version 10000", "newer Bellhop"],
        ),
        (
            foreign,
            ["bellhop.db", "not a Bellhop store", "another data folder"],
        ),
        (
            with(0, b"NoSuchThing"),
            ["bellhop.db", "damaged", "Nothing was changed"],
        ),
        (
            with(2 * page, &garbage),
            ["bellhop.db", "damaged", "Move the folder aside"],
        ),
    ] {
        std::fs::write(&database, &bytes).unwrap();
        let _ = std::fs::remove_file(&log);
        let before = contents(&world.data_dir());
        start_fails(&world, &parts);
        let mut after = contents(&world.data_dir());
        // Who holds the lock is written down; a reader's shared memory is no content.
        let lock = store.join("bellhop.lock");
        after.insert(lock.clone(), before[&lock].clone());
        after.retain(|path, _| !path.ends_with("bellhop.db-shm"));
        let same = before
            .keys()
            .filter(|path| !path.ends_with("bellhop.db-shm"));
        for path in same {
            assert!(
                after.get(path) == Some(&before[path]),
                "{} changed",
                path.display()
            );
        }
    }
    // The way out that the message names works: aside with it, and everything is read again.
    std::fs::rename(&store, world.data_dir().join("aside")).unwrap();
    let program = world.start("").await;
    program.settled().await;
    world.equal(&program, &mut Consumer::default()).await;
    program.stop().await;
}

/// A quota that the events fill: old versions go first, acceptance goes on, the newest stays.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_quota_makes_room_by_dropping_what_is_superseded() {
    let world = World::new(provider()).await;
    let program = world.start("state: { embedded: { size: 64Mi } }").await;
    program.settled().await;
    let head = async || program.status().await["store"]["head"].as_u64().unwrap();
    // Four rates of 800 kB each, changed again and again: more than the quota.
    let first = head().await;
    for round in 0..22 {
        for rate in world.keys("rate/") {
            let filler = format!("{round:02}").repeat(400_000);
            let mut body = serde_json::Map::new();
            body.insert("description".to_owned(), filler.into());
            world.control.change(&rate, &body, true).unwrap();
        }
        eventually("each is published", async || {
            (head().await >= first + 4 * (round + 1)).then_some(())
        })
        .await;
    }
    let status = program.status().await;
    let (used, limit) = (
        status["store"]["bytes"].as_u64().unwrap(),
        status["store"]["bytesLimit"].as_u64().unwrap(),
    );
    assert!(used <= limit, "{used} of {limit}");
    let on_disk = contents(&world.data_dir().join("store")).into_values();
    let on_disk: usize = on_disk.map(|bytes| bytes.len()).sum();
    assert!(
        on_disk <= 64 << 20,
        "{on_disk} bytes, the write-ahead log included"
    );
    let counts = serde_json::to_value(world.control.delivery_counts()).unwrap();
    for failed in ["gaveUp", "refused", "lost", "dropped"] {
        assert_eq!(counts[failed], 0, "{counts}");
    }
    // A consumer that comes late gets the newest of each.
    world.equal(&program, &mut Consumer::default()).await;
    program.stop().await;
}

/// A file system of its own, small; gone at the end, whatever happens.
struct Volume(PathBuf);

impl Volume {
    fn new(path: &Path, size: &str) -> Option<Self> {
        std::fs::create_dir_all(path).unwrap();
        let options = format!("size={size}");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "tmpfs"])
            .arg(path)
            .output();
        match mounted {
            Ok(output) if output.status.success() => Some(Self(path.to_owned())),
            Ok(output) => {
                let why = String::from_utf8_lossy(&output.stderr).into_owned();
                crate::skip::without(&format!(
                    "cannot mount a small file system (needs root): {}",
                    why.trim()
                ));
                None
            }
            Err(error) => {
                crate::skip::without(&format!("cannot run `mount`: {error}"));
                None
            }
        }
    }

    /// Fills it to the last byte.
    fn fill(&self) -> PathBuf {
        use std::io::Write;
        let path = self.0.join("filler");
        let mut file = std::fs::File::create(&path).unwrap();
        for size in [64 * 1024, 4096, 512, 1] {
            while file.write_all(&vec![0; size]).is_ok() {}
        }
        path
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// The volume is full: 503 with `Retry-After`, never 500, never a lost 200; with space again, the
/// provider's retries get through and the consumer ends equal.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn disk_full() {
    // Bookings, since no list brings them: what a consumer holds of one, its notification brought.
    let world = World::new(bellhop::simulator::Config {
        retry_delays: Vec::new(),
        bookings: 4000,
        ..provider()
    })
    .await;
    let Some(volume) = Volume::new(&world.data_dir(), "24m") else {
        return;
    };
    let program = world.start("state: { embedded: { size: 1Gi } }").await;
    program.settled().await;
    let mut consumer = Consumer::default();
    world.equal(&program, &mut consumer).await;

    // No read comes back, so that what is accepted is still owed when the program is killed.
    world.faults(serde_json::json!({ "hang": 1.0, "on": "reseller" }));
    let filler = volume.fill();
    // A little room, or the first one might be refused already.
    let file = std::fs::File::options().write(true).open(&filler).unwrap();
    let full = file.metadata().unwrap().len();
    file.set_len(full - 512 * 1024).unwrap();
    // Open, it would keep its space when it is removed.
    drop(file);
    // Notify, each time about another booking, until that is used up and one is refused.
    let mut bookings = world.keys("booking/").into_iter();
    eventually("the first refusal", async || {
        for booking in bookings.by_ref().take(10) {
            world.change(&booking);
        }
        assert!(world.control.idle(LONG).await);
        assert!(bookings.len() > 0, "all were told, and none refused");
        (statuses(&world).contains(&503)).then_some(())
    })
    .await;
    let seen = statuses(&world);
    assert!(
        seen.iter().all(|status| [200, 429, 503].contains(status)),
        "{seen:?}"
    );
    let answer = refusal(&program, &world).await;
    assert_eq!(answer.0, 503);
    assert!(
        answer.1.is_some_and(|seconds| seconds > 0),
        "a Retry-After with seconds"
    );
    let live = program
        .get(&format!("http://{}/livez", program.admin))
        .await;
    assert_eq!(live.unwrap().0, 200, "full is no reason to die");
    assert!(program.metric("bellhop_store_full_total").await > 0);
    let (accepted, refused) = answered(&world);
    println!("{} accepted, {} refused", accepted.len(), refused.len());
    assert!(!accepted.is_empty() && !refused.is_empty());

    // Killed while full: what was answered 200 leads to the consumer, with nothing said anew.
    drop(program);
    std::fs::remove_file(&filler).unwrap();
    world.no_faults();
    let program = world.start("state: { embedded: { size: 1Gi } }").await;
    holds(&world, &program, &mut consumer, &accepted).await;
    // And it takes notifications again.
    for booking in &refused {
        world.change(booking);
    }
    holds(&world, &program, &mut consumer, &refused).await;
    world.equal(&program, &mut consumer).await;
    program.stop().await;
    drop(volume);
}

/// The bookings whose notification was answered 200, and those whose was not.
fn answered(world: &World) -> (Vec<String>, Vec<String>) {
    let deliveries = world.control.deliveries(0, usize::MAX).into_iter();
    let bookings = deliveries.filter(|one| one.entity.starts_with("booking/"));
    let (accepted, refused): (Vec<_>, Vec<_>) =
        bookings.partition(|one| one.outcome == Outcome::Delivered);
    let entities = |some: Vec<Delivery>| some.into_iter().map(|one| one.entity).collect();
    (entities(accepted), entities(refused))
}

/// Waits until the consumer holds the provider's truth of all these bookings.
async fn holds(world: &World, program: &Program, consumer: &mut Consumer, bookings: &[String]) {
    let begun = Instant::now();
    loop {
        consumer.catch_up(program).await;
        let mut missing = bookings.to_vec();
        missing.retain(|booking| {
            let truth = world.control.truth(booking, Days::from_today(1));
            truth.is_none() || consumer.data(booking) != truth.as_ref()
        });
        if missing.is_empty() {
            return;
        }
        if begun.elapsed() > LONG {
            let status = program.status().await;
            panic!("{missing:?} did not arrive: {status:#}");
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// All statuses that deliveries were answered with.
fn statuses(world: &World) -> BTreeSet<u64> {
    let deliveries = world.control.deliveries(0, usize::MAX);
    let deliveries = deliveries
        .iter()
        .map(|one| serde_json::to_value(one).unwrap());
    deliveries
        .flat_map(|one| one["attempts"].as_array().cloned().unwrap_or_default())
        .filter_map(|attempt| attempt["status"].as_u64())
        .collect()
}

/// Status and `Retry-After` of a delivery that is sent by hand, byte for byte as the last one was
/// but for its signature.
async fn refusal(program: &Program, world: &World) -> (u16, Option<u64>) {
    let rules = world.control.rules();
    let (_, rule) = rules
        .iter()
        .find(|(kind, _)| kind.name() == "rate")
        .unwrap();
    let key = rule["securityKey"].as_str().unwrap();
    let seconds = std::time::SystemTime::UNIX_EPOCH
        .elapsed()
        .unwrap()
        .as_secs();
    eventually("a refusal by hand", async || {
        let token = fastrand::u64(..).to_string();
        let sum = super::input::hmac(key, &format!("{seconds}{token}"));
        let body = format!(
            r#"{{"supplierID":"s","productID":"p","rateID":"r{token}","operation":"updated","signature":{{"sum":"{sum}","timestamp":{seconds},"token":"{token}"}}}}"#
        );
        let url = format!("http://{}/redeam/rate", program.public);
        let answer = super::rig::http().post(url).body(body).send().await.unwrap();
        let after = answer.headers().get("retry-after");
        let after = after.and_then(|value| value.to_str().ok()?.parse().ok());
        let status = answer.status().as_u16();
        assert!([200, 503].contains(&status), "{status}");
        (status != 200).then_some((status, after))
    })
    .await
}

/// A data folder that cannot be written to.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_data_folder_that_is_none() {
    let world = World::new(provider()).await;
    std::fs::write(world.manifest_file(), manifest("")).unwrap();
    std::fs::write(world.data_dir(), "a file").unwrap();
    start_fails(&world, &["data", "File exists", "--data-dir"]);
    assert_eq!(std::fs::read(world.data_dir()).unwrap(), b"a file");
}

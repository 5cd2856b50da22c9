//! A changed key: 503 until it was looked for, then right or 401; learned, announced, old ones kept
//! for a while.

use std::fs;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bellhop::api::NotificationType;
use bellhop::receiver::{KEY_GRACE, KeySource};
use bellhop::secrets::Secret;

use super::rig::{NOW, OWNER, Rig, Setup, key_of, rig, signed};

const RATE: NotificationType = NotificationType::Rate;

async fn post(rig: &Rig, key: &str) -> u16 {
    let now = rig.clock.wall.load(Ordering::SeqCst) / 1000;
    rig.post("/rate", signed(RATE, key, now, "t")).await.status
}

/// Waits until the registry was read `count` times and the ring took the answer in.
async fn read(rig: &Rig, count: u64) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    while rig.registry.reads.load(Ordering::SeqCst) < count {
        assert!(tokio::time::Instant::now() < deadline, "no re-read");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    tokio::time::sleep(Duration::from_millis(50)).await;
}

fn at_registry(rig: &Rig, url: &str, key: &str) {
    *rig.registry.rule.lock().unwrap() = Some((url.to_owned(), key.to_owned()));
}

#[tokio::test]
async fn a_changed_key_is_learned_and_the_old_one_stays_a_while() {
    let mut rig = rig(Setup::default()).await;
    at_registry(&rig, &format!("https://x/rate/{OWNER}"), "new-key");
    assert_eq!(post(&rig, "new-key").await, 503);
    read(&rig, 1).await;
    assert_eq!(post(&rig, "new-key").await, 200);
    assert_eq!(post(&rig, &key_of(RATE)).await, 200, "within the grace");
    let change = rig.changes.recv().await.unwrap();
    assert_eq!(change.kind, RATE);
    assert_eq!(change.source, KeySource::Registry);
    assert_eq!(change.key, Secret::new("new-key"));
    assert_eq!(post(&rig, "wrong").await, 401, "just looked");
    rig.clock.advance(KEY_GRACE);
    assert_eq!(post(&rig, &key_of(RATE)).await, 503, "grace is over");
    assert_eq!(post(&rig, "new-key").await, 200);
}

#[tokio::test]
async fn unknown_signatures_cost_one_re_read_a_minute() {
    let rig = rig(Setup::default()).await;
    at_registry(&rig, &format!("https://x/rate/{OWNER}"), &key_of(RATE));
    assert_eq!(post(&rig, "wrong").await, 503);
    read(&rig, 1).await;
    for _ in 0..5 {
        assert_eq!(post(&rig, "wrong").await, 401);
    }
    assert_eq!(rig.registry.reads.load(Ordering::SeqCst), 1);
    rig.clock.advance(Duration::from_mins(1));
    assert_eq!(post(&rig, "wrong").await, 503);
    read(&rig, 2).await;
    assert_eq!(post(&rig, "wrong").await, 401);
    assert!(
        rig.metrics
            .encode()
            .contains("bellhop_receiver_key_rereads_total{type=\"Rate\",result=\"unchanged\"} 2")
    );
}

#[tokio::test]
async fn while_the_registry_is_down_nothing_is_refused_for_good() {
    let rig = rig(Setup::default()).await;
    assert_eq!(post(&rig, "new-key").await, 503);
    read(&rig, 1).await;
    assert_eq!(post(&rig, "new-key").await, 503);
    rig.clock.advance(Duration::from_secs(59));
    assert_eq!(post(&rig, "new-key").await, 503);
    assert_eq!(rig.registry.reads.load(Ordering::SeqCst), 1);
    at_registry(&rig, &format!("https://x/rate/{OWNER}"), "new-key");
    rig.clock.advance(Duration::from_secs(1));
    assert_eq!(post(&rig, "new-key").await, 503);
    read(&rig, 2).await;
    assert_eq!(post(&rig, "new-key").await, 200);
}

#[tokio::test]
async fn the_key_of_a_rule_that_is_not_ours_is_not_believed() {
    let rig = rig(Setup::default()).await;
    at_registry(&rig, "https://x/rate/9999999999", "their-key");
    assert_eq!(post(&rig, "their-key").await, 503);
    read(&rig, 1).await;
    assert_eq!(post(&rig, "their-key").await, 401);
}

#[tokio::test]
async fn without_a_key_everything_waits() {
    let rig = rig(Setup {
        with_keys: false,
        ..Setup::default()
    })
    .await;
    let body = signed(RATE, "k", NOW, "t");
    for path in ["/rate", "/redeam"] {
        let answer = rig.post(path, &body).await;
        assert_eq!(answer.status, 503, "{path}");
        assert!(answer.header("retry-after").is_some());
    }
    assert_eq!(rig.post("/rate", "{}").await.status, 400);
}

#[tokio::test]
async fn the_folder_is_read_again_when_its_link_is_swapped() {
    // As the kubelet does it: `rate -> ..data/rate`, `..data -> ..v1`, swapped by rename.
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let publish = |version: &str, text: &str| {
        fs::create_dir(root.join(version)).unwrap();
        fs::write(root.join(version).join("rate"), text).unwrap();
        std::os::unix::fs::symlink(version, root.join("..tmp")).unwrap();
        fs::rename(root.join("..tmp"), root.join("..data")).unwrap();
    };
    publish("..v1", "one\n");
    std::os::unix::fs::symlink("..data/rate", root.join("rate")).unwrap();
    let mut rig = rig(Setup {
        with_keys: false,
        folder: Some(root.to_owned()),
        ..Setup::default()
    })
    .await;
    rig.keys.load().await.unwrap();
    assert_eq!(post(&rig, "one").await, 200);
    publish("..v2", "two\none\n\n");
    rig.keys.load().await.unwrap();
    for key in ["one", "two"] {
        assert_eq!(post(&rig, key).await, 200);
    }
    let change = rig.changes.recv().await.unwrap();
    assert_eq!((change.kind, change.source), (RATE, KeySource::Folder));
    let shown: Vec<_> = rig.keys.fingerprints(RATE);
    assert_eq!(
        shown,
        [
            Secret::new("two").fingerprint(),
            Secret::new("one").fingerprint()
        ]
    );
    // Found by itself as well, with the clock.
    publish("..v3", "three\n");
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    while rig.keys.fingerprints(RATE)[0] != Secret::new("three").fingerprint() {
        assert!(tokio::time::Instant::now() < deadline, "not re-read");
        rig.clock.advance(Duration::from_secs(2));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

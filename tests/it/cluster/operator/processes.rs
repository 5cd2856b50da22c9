//! The program itself: two replicas and their lease. Oracle: the Lease, and the process' end.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use serde_json::json;

use super::rig::{KEY, Rig};

/// A running `bellhop operator`; killed when it goes out of scope.
struct Program(Child);

impl Program {
    fn start(rig: &Rig, identity: &str) -> Self {
        let registry = rig.simulator.registry_url();
        let namespace = &rig.space.name;
        let child = Command::new(env!("CARGO_BIN_EXE_bellhop"))
            .arg("operator")
            .args(["--namespaces", namespace, "--lease-namespace", namespace])
            .args(["--identity", identity, "--admin-listen", "127.0.0.1:0"])
            .args(["--sandbox-registry-url", &registry])
            .env("KUBECONFIG", &rig.space.plane.admin)
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        Self(child)
    }

    fn signal(&self, name: &str) {
        let pid = self.0.id().to_string();
        let sent = Command::new("kill").args([name, &pid]).status();
        assert!(sent.unwrap().success());
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn holder(rig: &Rig) -> Option<String> {
    let leases: Api<Lease> = Api::namespaced(rig.space.client.clone(), &rig.space.name);
    let lease = leases.get_opt("bellhop-operator").await.unwrap()?;
    lease.spec?.holder_identity
}

/// Waits until a replica leads, and how long that took.
async fn until_led_by(rig: &Rig, identity: &str) -> Duration {
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_mins(1) {
        if holder(rig)
            .await
            .is_some_and(|one| one.starts_with(identity))
        {
            return begun.elapsed();
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{identity} does not lead after 60 s");
}

#[tokio::test]
async fn two_replicas_hand_over() {
    let Some(rig) = Rig::new("replicas").await else {
        return;
    };
    rig.create_keys("redeam-keys", KEY).await;
    let first = Program::start(&rig, "first");
    until_led_by(&rig, "first").await;
    let second = Program::start(&rig, "second");
    rig.create("shop", |_| {}).await;
    rig.until("shop", "Ready", "True Ok").await;
    rig.check_registered("shop").await;

    // Asked to end: it gives the lease back.
    tokio::time::sleep(Duration::from_secs(1)).await;
    first.signal("-TERM");
    let graceful = until_led_by(&rig, "second").await;
    println!("hand-over after SIGTERM: {graceful:?}");
    assert!(graceful < Duration::from_secs(3), "{graceful:?}");
    drop(first);

    // Killed: the lease must run out.
    let third = Program::start(&rig, "third");
    tokio::time::sleep(Duration::from_secs(3)).await;
    second.signal("-KILL");
    let killed = until_led_by(&rig, "third").await;
    println!("hand-over after SIGKILL: {killed:?}");
    assert!(killed < Duration::from_secs(14), "{killed:?}");
    assert!(
        killed > Duration::from_secs(5),
        "not before the lease ran out: {killed:?}"
    );

    // The third one works.
    rig.delete("shop").await;
    rig.check_gone("shop").await;
    drop((second, third));
}

#[tokio::test]
async fn whoever_lost_the_lease_ends() {
    let Some(rig) = Rig::new("lost").await else {
        return;
    };
    let mut program = Program::start(&rig, "first");
    until_led_by(&rig, "first").await;
    let leases: Api<Lease> = Api::namespaced(rig.space.client.clone(), &rig.space.name);
    let stolen = json!({ "spec": { "holderIdentity": "thief" } });
    let params = kube::api::PatchParams::default();
    leases
        .patch(
            "bellhop-operator",
            &params,
            &kube::api::Patch::Merge(stolen),
        )
        .await
        .unwrap();
    let begun = Instant::now();
    let ended = loop {
        if let Some(status) = program.0.try_wait().unwrap() {
            break status;
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "it goes on");
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert_eq!(ended.code(), Some(1));
    assert_eq!(
        holder(&rig).await.as_deref(),
        Some("thief"),
        "and leaves it alone"
    );
}

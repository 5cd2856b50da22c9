//! The program itself: two replicas and their lease. Oracle: the Lease, the process' end, and the
//! API server's audit log.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use serde_json::json;

use super::super::eventually;
use super::super::plane::Call;
use super::super::process::{bellhop, start};
use super::super::supervise::Supervised;
use super::super::wire::Wire;
use super::outage::outage;
use super::rig::{KEY, Rig};

/// A replica of the operator, which never outlives this process. Shows its log when the test fails.
struct Replica(Supervised);

impl Replica {
    fn start(rig: &Rig, identity: &str) -> Self {
        // A user of its own: the API server's audit log then tells who did what.
        let user = format!("{}-{identity}", rig.space.name);
        let kubeconfig = rig.space.plane.kubeconfig(&user, "system:masters");
        let registry = rig.simulator.registry_url();
        Self::of(&kubeconfig, &rig.space.name, &registry, identity)
    }

    fn of(kubeconfig: &Path, namespace: &str, registry: &str, identity: &str) -> Self {
        let mut operator = bellhop(&["operator", "--admin-listen", "127.0.0.1:0"]);
        operator.args(["--namespaces", namespace, "--lease-namespace", namespace]);
        operator.args(["--identity", identity, "--sandbox-registry-url", registry]);
        operator.env("KUBECONFIG", kubeconfig);
        Self(start("operator", &operator))
    }

    fn signal(&self, name: &str) {
        self.0.signal(name);
    }

    /// Its exit code, once it has ended by itself.
    async fn ended(&mut self) -> Option<i32> {
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(20) {
            if let Some(status) = self.0.status() {
                return status.code();
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("it goes on after 20 s");
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("--- a replica said ---\n{}", self.0.log());
        }
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
    let first = Replica::start(&rig, "first");
    until_led_by(&rig, "first").await;
    let second = Replica::start(&rig, "second");
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
    let third = Replica::start(&rig, "third");
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
    let mut program = Replica::start(&rig, "first");
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
    assert_eq!(program.ended().await, Some(1));
    assert_eq!(
        holder(&rig).await.as_deref(),
        Some("thief"),
        "and leaves it alone"
    );
}

/// A leader that sleeps in the middle of a registration, beyond its lease, with a write on its way.
#[tokio::test]
async fn a_leader_that_wakes_up_late_writes_nothing() {
    let Some(rig) = Rig::new("late").await else {
        return;
    };
    rig.create_keys("redeam-keys", KEY).await;
    let slow = json!({ "latency-min-ms": 400, "latency-max-ms": 400 });
    rig.simulator.control().merge_faults(&slow).unwrap();
    let mut old = Replica::start(&rig, "old");
    until_led_by(&rig, "old").await;
    let new = Replica::start(&rig, "new");
    rig.create("shop", |_| {}).await;
    // Its answer is still on its way.
    rig.eventually("the first rule is made", || rig.rules().len() == 1)
        .await;
    old.signal("-STOP");
    until_led_by(&rig, "new").await;
    rig.until("shop", "Ready", "True Ok").await;
    rig.check_registered("shop").await;
    let user = format!("{}-old", rig.space.name);
    let written = |calls: Vec<Call>| {
        let writes = calls.into_iter().filter(|call| {
            !matches!(call.verb.as_str(), "get" | "list" | "watch") && call.code < 300
        });
        writes.count()
    };
    let before = written(rig.space.plane.calls(&user));
    assert!(before > 0, "it has led");
    let asked = || {
        let requests = rig.simulator.control().requests(0, usize::MAX);
        requests.iter().filter(|one| one.method != "GET").count()
    };
    let asked_before = asked();

    old.signal("-CONT");
    assert_eq!(old.ended().await, Some(1));
    assert_eq!(written(rig.space.plane.calls(&user)), before);
    assert_eq!(asked(), asked_before, "nor to the provider");
    rig.check_registered("shop").await;
    assert!(holder(&rig).await.is_some_and(|one| one.starts_with("new")));
    drop(new);
}

/// An API server that is away for longer than the lease lasts.
#[tokio::test]
async fn an_outage_ends_the_leader_and_the_next_one_waits_for_its_end() {
    let Some(rig) = Rig::new("outage").await else {
        return;
    };
    rig.create_keys("redeam-keys", KEY).await;
    let (namespace, registry) = (&rig.space.name, rig.simulator.registry_url());
    let direct = rig.space.plane.kubeconfig(namespace, "system:masters");
    let wire = Wire::to(rig.space.plane.port).await;
    let kubeconfig = wire.kubeconfig(&direct);
    let mut first = Replica::of(&kubeconfig, namespace, &registry, "first");
    until_led_by(&rig, "first").await;
    rig.create("shop", |_| {}).await;
    rig.until("shop", "Ready", "True Ok").await;

    let cut = Instant::now();
    wire.cut();
    rig.delete("shop").await;
    rig.create("next", |object| {
        object["spec"]["notifications"] = json!([{ "type": "Supplier" }]);
    })
    .await;
    assert_eq!(first.ended().await, Some(1));
    let ended = cut.elapsed();
    println!("without its API server it ended after {ended:?}");
    // Its last renewal was two seconds before at most, and the next one was due within six: whoever
    // waits for the lease of ten seconds must find it gone.
    assert!(ended < Duration::from_secs(8), "{ended:?}");
    // As the Deployment does.
    let mut second = Replica::of(&kubeconfig, namespace, &registry, "second");
    tokio::time::sleep(outage()).await;
    assert!(second.0.status().is_none(), "it does not give up");
    assert_eq!(
        rig.condition("next", "Ready").await,
        None,
        "nobody can know of it"
    );

    wire.mend();
    let found = until_led_by(&rig, "second").await;
    println!("leads after the outage: {found:?}");
    rig.until_gone("shop").await;
    rig.until("next", "Ready", "True Ok").await;
    drop(second);
}

/// Runs only as a child of the test below.
#[test]
#[ignore = "the process that another test kills"]
fn owner() {
    let identity = std::env::var("BELLHOP_REPLICA_TEST").unwrap();
    let kubeconfig = std::env::var_os("KUBECONFIG").unwrap();
    let _replica = Replica::of(
        Path::new(&kubeconfig),
        "shop",
        "http://127.0.0.1:9",
        &identity,
    );
    std::thread::sleep(Duration::from_secs(1_000));
}

/// It needs no API server: a replica that finds none waits for it.
#[test]
fn a_replica_dies_with_a_killed_test_process() {
    let folder = tempfile::tempdir().unwrap();
    let kubeconfig = folder.path().join("kubeconfig");
    let nobody = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "none",
        "contexts": [{ "name": "none", "context": { "cluster": "none", "user": "none" } }],
        "clusters": [{ "name": "none", "cluster": { "server": "http://127.0.0.1:9" } }],
        "users": [{ "name": "none", "user": {} }]
    });
    std::fs::write(&kubeconfig, nobody.to_string()).unwrap();
    let identity = format!("orphan-{:016x}", fastrand::u64(..));
    let mut owner = Command::new(std::env::current_exe().unwrap())
        .args([
            "--ignored",
            "--exact",
            "cluster::operator::processes::owner",
        ])
        .env("BELLHOP_REPLICA_TEST", &identity)
        .env("KUBECONFIG", &kubeconfig)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    // By what it was told: whose child it is at the end does not matter.
    let runs = || {
        let all = Command::new("ps").args(["-A", "-o", "args"]).output();
        String::from_utf8_lossy(&all.unwrap().stdout).contains(&identity)
    };
    eventually("the replica runs", || runs().then_some(()));
    owner.kill().unwrap();
    owner.wait().unwrap();
    eventually("the replica is gone", || (!runs()).then_some(()));
}

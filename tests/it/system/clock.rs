//! Our clock is wrong, or steps, in the assembled process. Oracle: the simulator (whose clock is
//! right) and what the consumer ends with.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bellhop::cli::dataplane::Ports;
use bellhop::cli::manifests::{Manifests, Overrides};
use bellhop::cli::standalone::Standalone;
use bellhop::clock::{Clock, SystemClock, Ticks, UnixMillis};
use bellhop::shutdown::Supervisor;
use bellhop::simulator::Days;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::rig::{DAYS, World, eventually, http, manifest, provider};

/// The machine's clock, moved. Its monotonic side is that of the machine: what waits must not feel
/// a step.
struct Moved {
    system: SystemClock,
    by_ms: AtomicI64,
}

impl Moved {
    fn by(&self, hours: i64) {
        self.by_ms.store(hours * 3_600_000, Ordering::SeqCst);
    }
}

#[async_trait]
impl Clock for Moved {
    fn now(&self) -> UnixMillis {
        UnixMillis(self.system.now().0 + self.by_ms.load(Ordering::SeqCst))
    }
    fn ticks(&self) -> Ticks {
        self.system.ticks()
    }
    async fn sleep(&self, duration: Duration) {
        self.system.sleep(duration).await;
    }
}

/// The process, in this one.
struct Inside {
    world: World,
    clock: Arc<Moved>,
    token: CancellationToken,
    task: tokio::task::JoinHandle<()>,
    admin: String,
    feed: String,
}

impl Inside {
    async fn new(hours: i64) -> Self {
        let world = World::new(provider()).await;
        let clock = Arc::new(Moved {
            system: SystemClock::new(),
            by_ms: AtomicI64::new(0),
        });
        clock.by(hours);
        let overrides = Overrides {
            registry_url: Some(world.simulator.registry_url()),
            api_url: Some(world.simulator.api_url()),
            feed_token_file: None,
            data_dir: world.data_dir(),
        };
        let text = vec![(PathBuf::from("shop.yaml"), manifest("").into_bytes())];
        let standalone = Standalone {
            move_account: false,
            manifests: Manifests::parse(text, overrides).unwrap(),
            data_dir: world.data_dir(),
            tls: None,
            drain: Duration::from_secs(5),
            allow_plain_http: false,
        };
        let bind = async || TcpListener::bind("127.0.0.1:0").await.unwrap();
        let ports = Ports {
            public: bind().await,
            admin: bind().await,
            feed: bind().await,
        };
        let address = |port: &TcpListener| port.local_addr().unwrap().to_string();
        let (public, admin, feed) = (
            address(&ports.public),
            address(&ports.admin),
            address(&ports.feed),
        );
        let mut supervisor = Supervisor::new();
        let token = supervisor.token();
        let plane = standalone
            .start_at(clock.clone(), ports, &mut supervisor)
            .await
            .unwrap();
        let task = tokio::spawn(async move {
            let ended = supervisor
                .run_until_cancelled(Duration::from_secs(10))
                .await;
            assert_eq!(ended, Ok(()));
            plane.close().await;
        });
        let to = Some(format!("http://{public}"));
        world.control.deliver_to(to).unwrap();
        let inside = Self {
            world,
            clock,
            token,
            task,
            admin,
            feed,
        };
        eventually("the rules are live", async || {
            let status = inside.status().await?;
            (status["registered"] == "2/2" && status["store"]["marks"] == 0).then_some(())
        })
        .await;
        inside
    }

    async fn json(&self, url: String) -> Option<Value> {
        let answer = http().get(url).send().await.ok()?;
        serde_json::from_slice(&answer.bytes().await.ok()?).ok()
    }

    async fn status(&self) -> Option<Value> {
        self.json(format!("http://{}/status", self.admin)).await
    }

    /// Changes all rates, and waits until a consumer that lists holds them, each at a revision
    /// above the one it had.
    async fn a_round(&self, revisions: &mut BTreeMap<String, u64>) {
        for rate in self.world.keys("rate/") {
            self.world.change(&rate);
        }
        let truth: BTreeMap<String, Value> = self
            .world
            .control
            .truths("rate/", Days::from_today(DAYS + 1))
            .into_iter()
            .collect();
        let list = eventually("the consumer is equal", async || {
            let url = format!("http://{}/v1/entities?type=rate&limit=500", self.feed);
            let list = self.json(url).await?;
            let items = list["items"].as_array()?.clone();
            let held: BTreeMap<String, Value> = items
                .iter()
                .map(|event| {
                    (
                        event["subject"].as_str().unwrap().to_owned(),
                        event["data"].clone(),
                    )
                })
                .collect();
            (held == truth).then_some(items)
        })
        .await;
        for event in list {
            let key = event["subject"].as_str().unwrap().to_owned();
            let revision: u64 = event["sequence"].as_str().unwrap().parse().unwrap();
            let before = revisions.insert(key.clone(), revision);
            assert!(before < Some(revision), "{key}: {before:?} then {revision}");
        }
    }

    async fn condition(&self, kind: &str) -> Option<String> {
        let status = self.status().await?;
        let conditions = status["conditions"].as_array()?;
        let found = conditions.iter().find(|one| one["type"] == kind)?;
        Some(found["status"].as_str()?.to_owned())
    }

    async fn stop(self) {
        self.token.cancel();
        self.task.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_hour_behind() {
    let inside = Inside::new(-1).await;
    let mut revisions = BTreeMap::new();
    for _ in 0..2 {
        inside.a_round(&mut revisions).await;
    }
    let skew = inside.condition("ClockSkew").await;
    assert_eq!(
        skew.as_deref(),
        Some("True"),
        "the provider is ahead of us, and that is said"
    );
    inside.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_hour_ahead() {
    let inside = Inside::new(1).await;
    let mut revisions = BTreeMap::new();
    for _ in 0..2 {
        inside.a_round(&mut revisions).await;
    }
    inside.stop().await;
}

/// Back and forth while it works: revisions only rise, nothing is lost, nothing waits for a time
/// that has been set back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_steps_while_it_runs() {
    let inside = Inside::new(0).await;
    let mut revisions = BTreeMap::new();
    for hours in [0, 1, -1, 0, 12, -12, 0] {
        inside.clock.by(hours);
        inside.a_round(&mut revisions).await;
    }
    inside.stop().await;
}

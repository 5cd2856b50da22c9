//! `bellhop run` as a process of its own, to be killed and started again on the same folder.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bellhop::simulator::{Control, Simulator};
use serde_json::Value;

use crate::process;

const HORIZON_DAYS: u32 = 7;
/// For everything that has to come to an end: far beyond what it takes, also on a busy machine.
pub const PATIENCE: Duration = Duration::from_mins(2);

/// Three ports that no outgoing connection is given while the process is down.
pub fn free_addresses(random: &mut fastrand::Rng) -> [SocketAddr; 3] {
    let mut free = || loop {
        let address = SocketAddr::from(([127, 0, 0, 1], random.u16(10_000..30_000)));
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    };
    [free(), free(), free()]
}

/// The process under test.
pub struct Plane {
    child: Child,
    command: Command,
    pub log: PathBuf,
    admin: String,
    feed: String,
    client: reqwest::Client,
    pub start_up: Duration,
}

impl Drop for Plane {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawned(command: &mut Command, log: &Path) -> Child {
    let log = File::options().create(true).append(true).open(log).unwrap();
    command.stdout(Stdio::null()).stderr(log).spawn().unwrap()
}

impl Plane {
    pub fn start(simulator: &Simulator, addresses: [SocketAddr; 3], folder: &Path) -> Self {
        let manifest = folder.join("subscription.yaml");
        let fetch = format!(
            "fetch: {{ requestsPerSecond: 500, minInterval: 100ms, availabilityHorizonDays: {HORIZON_DAYS} }}"
        );
        fs::write(&manifest, process::manifest(&fetch)).unwrap();
        let [public, admin, feed] = addresses.map(|address| address.to_string());
        let mut command = process::run(
            &manifest,
            &folder.join("data"),
            (&simulator.registry_url(), &simulator.api_url()),
            [&public, &admin, &feed],
        );
        command.args(["--log", "info"]);
        let log = folder.join("log");
        Self {
            child: spawned(&mut command, &log),
            command,
            log,
            admin: format!("http://{admin}"),
            feed: format!("http://{feed}"),
            client: reqwest::Client::builder()
                .tls_certs_only([])
                .no_proxy()
                .timeout(Duration::from_secs(5))
                .build()
                .unwrap(),
            start_up: Duration::ZERO,
        }
    }

    pub fn feed(&self) -> String {
        self.feed.clone()
    }

    pub fn spawn(&mut self) {
        self.child = spawned(&mut self.command, &self.log);
    }

    /// SIGKILL. `Some`: it had ended before, which it never may.
    pub fn kill(&mut self) -> Option<String> {
        let ended = self.child.try_wait().unwrap();
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        ended.map(|status| status.to_string())
    }

    pub async fn status(&self) -> Option<Value> {
        let answer = self.client.get(format!("{}/status", self.admin));
        let bytes = answer.send().await.ok()?.bytes().await.ok()?;
        serde_json::from_slice(&bytes).ok()
    }

    /// How many resyncs began in all lives so far.
    pub fn resyncs(&self) -> usize {
        let log = fs::read_to_string(&self.log).unwrap();
        log.matches("resync begins").count() + log.matches("resync marked everything").count()
    }

    /// Waits until everything was read for the first time, and measures a start.
    pub async fn loaded(&mut self, control: &Control) {
        let begun = Instant::now();
        let mut calm = 0;
        let mut asked = false;
        while calm < 20 {
            assert!(
                begun.elapsed() < PATIENCE,
                "it does not come to rest at first"
            );
            tokio::time::sleep(Duration::from_millis(100)).await;
            let status = self.status().await.unwrap_or_default();
            let resync = &status["pipeline"]["resync"];
            let ready = status["registered"] == "7/7" && status["store"]["marks"] == 0;
            let idle = ready && resync["running"].is_null() && resync["last"].is_number();
            calm = if idle { calm + 1 } else { 0 };
            if idle && !asked {
                asked = true;
                self.name_bookings(control).await;
                calm = 0;
            }
        }
        self.kill();
        let begun = Instant::now();
        self.spawn();
        while self.status().await.is_none() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        self.start_up = begun.elapsed();
    }

    /// No list shows bookings.
    async fn name_bookings(&self, control: &Control) {
        let keys = control.keys();
        let bookings = keys.iter().filter(|key| key.starts_with("booking/"));
        let body = serde_json::json!({ "entities": bookings.collect::<Vec<_>>() });
        let answer = self
            .client
            .post(format!("{}/v1/refresh", self.feed))
            .header("content-type", "application/json")
            .body(body.to_string())
            .send()
            .await
            .unwrap();
        assert!(answer.status().is_success(), "{}", answer.status());
    }
}

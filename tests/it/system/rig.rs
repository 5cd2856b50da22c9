//! What these tests stand on: a folder with a manifest, a simulated provider in this process, the
//! program as a child, and a consumer that reads the feed. Nothing waits for a time to pass: every
//! wait is for a condition, with a deadline that only a broken program reaches.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bellhop::simulator::{Config, Control, Days, Simulator};
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::process;
pub use crate::process::bellhop;

/// Days of availability and prices that the subscription asks for, after today.
pub const DAYS: u32 = 4;

/// Far beyond what any step needs, on a slow machine with others at work.
pub const LONG: Duration = Duration::from_mins(1);

/// Runs it to its end.
pub fn finished(arguments: &[&str]) -> Finished {
    let mut command = bellhop();
    command.args(arguments);
    Finished::of(command)
}

/// How a process ended and what it said.
#[derive(Debug)]
pub struct Finished {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Finished {
    /// Runs a command to its end, which must come by itself. Blocks: a simulator that it talks to
    /// needs a runtime of several threads.
    pub fn of(mut command: Command) -> Self {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (out, err) = (
            hear(child.stdout.take().unwrap()),
            hear(child.stderr.take().unwrap()),
        );
        let begun = Instant::now();
        let status = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break status;
            }
            if begun.elapsed() > LONG {
                let _ = child.kill();
                panic!("{command:?} does not end: {}", err.join().unwrap());
            }
            std::thread::sleep(Duration::from_millis(10));
        };
        Self {
            code: status.code(),
            out: out.join().unwrap(),
            err: err.join().unwrap(),
        }
    }
}

/// Reads a pipe to its end.
fn hear(mut pipe: impl Read + Send + 'static) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut text = String::new();
        pipe.read_to_string(&mut text).unwrap();
        text
    })
}

/// Waits until `condition` gives something.
pub async fn eventually<T>(what: &str, mut condition: impl AsyncFnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = condition().await {
            return found;
        }
        assert!(begun.elapsed() < LONG, "never happened: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// All seven types. Registration keeps to its budget of five calls a second, so that most tests
/// subscribe to two only.
pub const ALL: &str = "notifications: [{ type: ChannelBinding }, { type: Supplier }, \
    { type: Product }, { type: Rate }, { type: Availability }, { type: PriceSchedule }, \
    { type: Booking }]";

/// A manifest: `spec`, lines of YAML, is laid below the usual fields and wins over them.
pub fn manifest(spec: &str) -> String {
    let usual = [
        (
            "notifications:",
            "notifications: [{ type: Rate }, { type: Booking }]".to_owned(),
        ),
        (
            "fetch:",
            format!(
                "fetch: {{ requestsPerSecond: 500, minInterval: 50ms, availabilityHorizonDays: {DAYS} }}"
            ),
        ),
    ];
    let usual = usual.iter().filter(|(field, _)| !spec.contains(field));
    let lines: Vec<&str> = usual
        .map(|(_, line)| line.as_str())
        .chain(spec.lines())
        .collect();
    process::manifest(&lines.join("\n"))
}

/// A small, quick provider: retries of deliveries come soon.
pub fn provider() -> Config {
    Config {
        suppliers: 1,
        products: 2,
        rates: 2,
        bookings: 3,
        retry_delays: [200, 500, 1000].map(Duration::from_millis).to_vec(),
        ..Config::default()
    }
}

/// A provider and a folder.
pub struct World {
    pub simulator: Simulator,
    pub control: Control,
    pub folder: tempfile::TempDir,
    http: reqwest::Client,
}

impl World {
    pub async fn new(config: Config) -> Self {
        same_day().await;
        let simulator = Simulator::start(config).await.unwrap();
        println!("simulator seed {}", simulator.seed());
        Self {
            control: simulator.control(),
            simulator,
            folder: tempfile::tempdir().unwrap(),
            http: http(),
        }
    }

    pub fn manifest_file(&self) -> PathBuf {
        self.folder.path().join("shop.yaml")
    }

    pub fn data_dir(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// `bellhop run`, not started yet, with three free ports.
    pub fn command(&self) -> Command {
        self.command_for(&self.simulator.registry_url(), &self.simulator.api_url())
    }

    /// The same for a provider elsewhere.
    pub fn command_for(&self, registry: &str, api: &str) -> Command {
        let mut command = process::run(
            &self.manifest_file(),
            &self.data_dir(),
            (registry, api),
            process::FREE,
        );
        command.args(["--log-format", "json"]);
        command
    }

    /// Starts the program with this spec; deliveries go to it from now on.
    pub async fn start(&self, spec: &str) -> Program {
        self.start_with(spec, |_| {}).await
    }

    /// The same with more on the command line.
    pub async fn start_with(&self, spec: &str, more: impl FnOnce(&mut Command)) -> Program {
        std::fs::write(self.manifest_file(), manifest(spec)).unwrap();
        let mut command = self.command();
        more(&mut command);
        let program = Program::start(command, self.http.clone()).await;
        self.control
            .deliver_to(Some(format!("http://{}", program.public)))
            .unwrap();
        program
    }

    /// Everything that a consumer should hold now of these types, as in the resource. A booking
    /// that nobody named is not known to it; a channel binding brings all of the catalogue.
    pub fn truth(&self, types: &[String]) -> BTreeMap<String, Value> {
        let all = types.iter().any(|kind| kind == "ChannelBinding");
        self.control
            .truths("", Days::from_today(DAYS + 1))
            .into_iter()
            .filter(|(key, _)| {
                let kind: String = key.split('/').next().unwrap().replace('-', "");
                kind != "booking"
                    && (all || types.iter().any(|one| one.eq_ignore_ascii_case(&kind)))
            })
            .collect()
    }

    /// Changes an entity at random and tells.
    pub fn change(&self, key: &str) {
        self.control
            .change(key, &serde_json::Map::new(), true)
            .unwrap();
    }

    /// The keys of a kind.
    pub fn keys(&self, prefix: &str) -> Vec<String> {
        let mut keys = self.control.keys();
        keys.retain(|key| key.starts_with(prefix));
        keys
    }

    /// Waits until the consumer holds what the provider has, and no more.
    pub async fn equal(&self, program: &Program, consumer: &mut Consumer) {
        let mut difference = String::new();
        let begun = Instant::now();
        let types = program.types().await;
        while begun.elapsed() < LONG {
            consumer.catch_up(program).await;
            difference = consumer.difference(&self.truth(&types));
            if difference.is_empty() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!(
            "the consumer never got equal: {difference}\n{}",
            program.log()
        );
    }

    /// Faults by name, as on the command line.
    pub fn faults(&self, faults: Value) {
        self.control.merge_faults(&faults).unwrap();
    }

    pub fn no_faults(&self) {
        self.control
            .set_faults(bellhop::simulator::Faults::default());
    }
}

/// What is compared covers the days from today on: a test does not begin just before midnight.
async fn same_day() {
    const DAY: u64 = 24 * 3600;
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap();
    let left = DAY - now.as_secs() % DAY;
    if left < 120 {
        tokio::time::sleep(Duration::from_secs(left + 1)).await;
    }
}

pub fn http() -> reqwest::Client {
    bellhop::provider::client::install_crypto_provider();
    reqwest::Client::builder()
        .tls_certs_only([])
        .no_proxy()
        .timeout(Duration::from_secs(20))
        .build()
        .unwrap()
}

/// A running `bellhop run`. Dropped, it is killed.
pub struct Program {
    pub child: Child,
    pub public: String,
    pub admin: String,
    pub feed: String,
    log: Arc<Mutex<String>>,
    reader: Option<std::thread::JoinHandle<()>>,
    http: reqwest::Client,
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Program {
    /// Starts it and waits until it says where it listens.
    pub async fn start(mut command: Command, http: reqwest::Client) -> Self {
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let log = Arc::new(Mutex::new(String::new()));
        let (stderr, heard) = (child.stderr.take().unwrap(), log.clone());
        let reader = std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let mut heard = heard.lock().unwrap();
                heard.push_str(&line);
                heard.push('\n');
            }
        });
        let mut program = Self {
            child,
            public: String::new(),
            admin: String::new(),
            feed: String::new(),
            log,
            reader: Some(reader),
            http,
        };
        let running = eventually("the program says that it runs", async || {
            let running = program.logged("running");
            if running.is_none()
                && let Ok(Some(status)) = program.child.try_wait()
            {
                panic!("ended with {status}: {}", program.log());
            }
            running
        })
        .await;
        let address = |name: &str| running[name].as_str().unwrap().to_owned();
        program.public = address("public");
        program.admin = address("admin");
        program.feed = address("feed");
        program
    }

    /// All that it wrote to stderr so far.
    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// The first log line with this message.
    pub fn logged(&self, message: &str) -> Option<Value> {
        self.log()
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok())
            .find(|line| line["message"] == message)
    }

    pub async fn get(&self, url: &str) -> Option<(StatusCode, String)> {
        let answer = self.http.get(url).send().await.ok()?;
        Some((answer.status(), answer.text().await.ok()?))
    }

    pub async fn status(&self) -> Value {
        let url = format!("http://{}/status", self.admin);
        let text = eventually("/status answers", async || self.get(&url).await)
            .await
            .1;
        serde_json::from_str(&text).unwrap()
    }

    /// The samples of `/metrics` by name and labels.
    pub async fn metrics(&self) -> BTreeMap<String, f64> {
        let url = format!("http://{}/metrics", self.admin);
        let text = eventually("/metrics answers", async || self.get(&url).await)
            .await
            .1;
        crate::charts::check_types(&text);
        text.lines()
            .filter(|line| !line.starts_with('#'))
            .map(|line| {
                let (name, value) = line.rsplit_once(' ').unwrap();
                (name.to_owned(), value.parse().unwrap())
            })
            .collect()
    }

    /// One sample that counts something; 0 when there is none.
    pub async fn metric(&self, name: &str) -> u64 {
        self.metrics()
            .await
            .get(name)
            .map_or(0, |value| *value as u64)
    }

    /// `status` and `reason` of a condition; `None` while there is no such condition.
    pub async fn condition(&self, kind: &str) -> Option<(String, String)> {
        let status = self.status().await;
        let conditions = status["conditions"].as_array().unwrap();
        let found = conditions.iter().find(|one| one["type"] == kind)?;
        let text = |name: &str| found[name].as_str().unwrap().to_owned();
        Some((text("status"), text("reason")))
    }

    pub async fn until_condition(&self, kind: &str, status: &str, reason: &str) {
        let mut last = None;
        let wanted = Some((status.to_owned(), reason.to_owned()));
        let begun = Instant::now();
        while begun.elapsed() < LONG {
            last = self.condition(kind).await;
            if last == wanted {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("{kind} is {last:?} instead of {wanted:?}\n{}", self.log());
    }

    /// The types that it is subscribed to, as in the resource.
    pub async fn types(&self) -> Vec<String> {
        let status = self.status().await;
        let rules = status["receiver"]["rules"].as_array().unwrap();
        let kinds = rules
            .iter()
            .map(|rule| rule["type"].as_str().unwrap().to_owned());
        kinds.collect()
    }

    /// Waits until all rules are live and all that they owe was read.
    pub async fn settled(&self) {
        let mut last = Value::Null;
        let begun = Instant::now();
        let rules = self.types().await.len();
        let registered = format!("{rules}/{rules}");
        while begun.elapsed() < LONG {
            last = self.status().await;
            let reads = &last["pipeline"]["resync"];
            if last["registered"] == registered
                && last["store"]["marks"] == 0
                && last["store"]["claims"] == 0
                && reads["running"].is_null()
                && !reads["last"].is_null()
            {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("never settled: {last:#}\n{}", self.log());
    }

    /// Posts JSON to the admin port.
    pub async fn post(&self, path: &str) -> (StatusCode, Value) {
        let url = format!("http://{}{path}", self.admin);
        let answer = self.http.post(url).send().await.unwrap();
        let status = answer.status();
        (
            status,
            serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap(),
        )
    }

    /// Asks the feed to look at these entities.
    pub async fn refresh(&self, keys: &[String]) {
        let url = format!("http://{}/v1/refresh", self.feed);
        let answer = self
            .http
            .post(url)
            .header("content-type", "application/json")
            .body(json!({ "entities": keys }).to_string())
            .send()
            .await
            .unwrap();
        assert!(answer.status().is_success(), "{}", answer.status());
    }

    /// Sends a signal by the `kill` program.
    pub fn signal(&self, signal: &str) {
        let sent = Command::new("kill")
            .args([signal, &self.child.id().to_string()])
            .status();
        assert!(sent.unwrap().success());
    }

    /// Waits for its end; the exit status and everything it said.
    pub async fn ended(mut self) -> (ExitStatus, String) {
        let child = &mut self.child;
        let status = eventually("the program ends", async || child.try_wait().unwrap()).await;
        if let Some(reader) = self.reader.take() {
            reader.join().unwrap();
        }
        (status, self.log())
    }

    /// SIGTERM, and a clean end.
    pub async fn stop(self) -> String {
        self.signal("-TERM");
        let (status, log) = self.ended().await;
        assert_eq!(status.code(), Some(0), "{log}");
        log
    }

    /// Resident memory in KiB, as the kernel counts it.
    pub fn memory(&self, field: &str) -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = text.lines().find(|line| line.starts_with(field)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }
}

/// A consumer as the design has it: reads every event in order, and keeps the newest of each
/// entity. Panics when one goes back.
#[derive(Default)]
pub struct Consumer {
    cursor: Option<String>,
    pub held: BTreeMap<String, (String, Option<Value>)>,
    pub events: usize,
}

impl Consumer {
    /// Reads on until there is nothing new.
    pub async fn catch_up(&mut self, program: &Program) {
        loop {
            let after = self
                .cursor
                .as_ref()
                .map(|cursor| format!("&after={cursor}"));
            let url = format!(
                "http://{}/v1/events?limit=500&wait=0s{}",
                program.feed,
                after.unwrap_or_default()
            );
            let answer = program.http.get(url).send().await.unwrap();
            assert_eq!(answer.status(), 200, "{:?}", answer.text().await);
            let cursor = answer.headers()["bellhop-cursor"]
                .to_str()
                .unwrap()
                .to_owned();
            let events: Vec<Value> =
                serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
            self.cursor = Some(cursor);
            if events.is_empty() {
                return;
            }
            for event in events {
                self.take(event);
            }
        }
    }

    fn take(&mut self, mut event: Value) {
        let key = event["subject"].as_str().unwrap().to_owned();
        let sequence = event["sequence"].as_str().unwrap().to_owned();
        let kind = event["type"].as_str().unwrap().to_owned();
        self.events += 1;
        if let Some((before, _)) = self.held.get(&key) {
            assert!(
                *before < sequence,
                "{key} went back: {before} then {sequence}"
            );
        }
        let data = (!kind.ends_with(".removed")).then(|| event["data"].take());
        self.held.insert(key, (sequence, data));
    }

    /// What is held of an entity.
    pub fn data(&self, key: &str) -> Option<&Value> {
        self.held.get(key)?.1.as_ref()
    }

    /// The keys under which this holds something else than `truth`; bookings aside, which only
    /// those tests compare that name them.
    pub fn difference(&self, truth: &BTreeMap<String, Value>) -> String {
        let mut different = Vec::new();
        for (key, value) in truth {
            if self.data(key) != Some(value) {
                different.push(key.as_str());
            }
        }
        for (key, (_, data)) in &self.held {
            if data.is_some() && !truth.contains_key(key) && !key.starts_with("booking/") {
                different.push(key.as_str());
            }
        }
        different.join(" ")
    }
}

/// A file's bytes, all of a folder's, by path below it.
pub fn contents(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.insert(path.clone(), std::fs::read(path).unwrap());
            }
        }
    }
    found
}

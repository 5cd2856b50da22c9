//! `bellhop receiver` as the pods run it: told by files alone, which are exchanged under it as a
//! kubelet does it. Oracle: the simulator's rules, its truth, and its record of requests; what the
//! admin port says.

mod reload;

use std::collections::BTreeMap;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bellhop::api::NotificationType;
use bellhop::api::v1alpha1::WebhookSubscription;
use bellhop::controller::access::{Access as _, ByAddress, Unreachable};
use bellhop::secrets::{Fingerprint, Secret};
use bellhop::settings::{Process, ReceiverConfig, Resolved, Settings, base_path};
use bellhop::simulator::Kind;
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::probe::hop::Authority;

use super::rig::{Consumer, Finished, Program, World, bellhop, eventually, http, provider};

const TOKEN: &str = "an-admin-token-of-the-operator";

/// A folder whose files are exchanged all at once, by the swap of one symbolic link.
struct Mounted {
    folder: PathBuf,
    version: AtomicU64,
    files: Mutex<BTreeMap<String, String>>,
}

impl Mounted {
    fn new(folder: PathBuf) -> Self {
        std::fs::create_dir(&folder).unwrap();
        let mounted = Self {
            folder,
            version: AtomicU64::new(0),
            files: Mutex::default(),
        };
        mounted.swap();
        mounted
    }

    /// Other files than before: a text, or `None` for one that goes.
    fn set<const N: usize>(&self, changes: [(&str, Option<&str>); N]) {
        for (name, text) in changes {
            let mut files = self.files.lock().unwrap();
            match text {
                Some(text) => _ = files.insert(name.to_owned(), text.to_owned()),
                None => _ = files.remove(name),
            }
        }
        self.swap();
    }

    /// As the kubelet's atomic writer does it.
    fn swap(&self) {
        let version = self.version.fetch_add(1, Ordering::SeqCst);
        let (now, data) = (format!("..{version}"), self.folder.join("..data"));
        let files = self.files.lock().unwrap();
        std::fs::create_dir(self.folder.join(&now)).unwrap();
        for (name, text) in files.iter() {
            std::fs::write(self.folder.join(&now).join(name), text).unwrap();
        }
        let before = std::fs::read_link(&data).ok();
        let new = self.folder.join("..data_tmp");
        symlink(&now, &new).unwrap();
        std::fs::rename(&new, &data).unwrap();
        for name in files.keys() {
            let link = self.folder.join(name);
            if link.symlink_metadata().is_err() {
                symlink(Path::new("..data").join(name), link).unwrap();
            }
        }
        for entry in std::fs::read_dir(&self.folder).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            if !name.starts_with("..") && !files.contains_key(&name) {
                std::fs::remove_file(entry.path()).unwrap();
            }
        }
        if let Some(before) = before {
            std::fs::remove_dir_all(self.folder.join(before)).unwrap();
        }
    }
}

/// A provider with a rule of a subscription to rates, made by somebody else, and what is mounted.
struct Pod {
    world: World,
    settings: Mounted,
    keys: Mounted,
    /// As an operator would write it.
    config: ReceiverConfig,
}

impl Pod {
    async fn new() -> Self {
        let world = World::new(provider()).await;
        let root = world.folder.path().to_owned();
        let keys = Mounted::new(root.join("keys"));
        keys.set([
            ("apiKey", Some("demo-key")),
            ("apiSecret", Some("demo-secret")),
        ]);
        let settings = Mounted::new(root.join("settings"));
        let config = config(&world, &json!({}));
        let pod = Self {
            world,
            settings,
            keys,
            config,
        };
        pod.tell(&pod.config);
        pod
    }

    fn tell(&self, config: &ReceiverConfig) {
        self.settings.set([("settings.yaml", Some(&config.text()))]);
    }

    async fn start(&self) -> Program {
        let program = Program::start(self.command(), http()).await;
        let to = format!("http://{}", program.public);
        self.world.control.deliver_to(Some(to)).unwrap();
        program
    }

    fn command(&self) -> Command {
        let mut command = bellhop();
        command.arg("receiver").arg("--config");
        command.arg(self.settings.folder.join("settings.yaml"));
        for port in ["PUBLIC", "ADMIN", "FEED"] {
            command.env(format!("BELLHOP_{port}_LISTEN"), "127.0.0.1:0");
        }
        command.args(["--log-format", "json"]);
        command
    }

    /// The rule, as the operator makes it; its key.
    async fn register(&self) -> String {
        let owner = &self.config.settings.subscription.owner;
        let url = format!("https://hooks.example.com/redeam/rate/{owner}");
        let body = json!({
            "url": url, "config": { "operations": ["updated"] },
        });
        let registry = self.world.simulator.registry_url();
        let request = http().post(format!("{registry}/rates"));
        let answer = request
            .header("x-api-key", "demo-key")
            .header("x-api-secret", "demo-secret")
            .header("content-type", "application/json")
            .body(body.to_string())
            .send()
            .await
            .unwrap();
        let status = answer.status();
        let rule: Value = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
        assert!(status.is_success(), "{rule}");
        rule["securityKey"].as_str().unwrap().to_owned()
    }

    /// A rate.
    fn rate(&self) -> String {
        self.world.keys("rate/").remove(0)
    }
}

/// The settings of the subscription with this merged into its spec.
fn config(world: &World, more: &Value) -> ReceiverConfig {
    let mut object = json!({
        "apiVersion": "bellhop.dev/v1alpha1",
        "kind": "WebhookSubscription",
        "metadata": { "name": "shop", "namespace": "default", "uid": "u-1" },
        "spec": {
            "environment": "sandbox",
            "url": "https://hooks.example.com/redeam",
            "credentialsSecretRef": { "name": "redeam-keys" },
            "notifications": [{ "type": "Rate" }],
            "fetch": { "requestsPerSecond": 500, "minInterval": "50ms" },
            "feed": { "auth": "None" },
        },
    });
    json_patch::merge(&mut object["spec"], more);
    let object: WebhookSubscription = serde_json::from_value(object).unwrap();
    let root = world.folder.path();
    let resolved = Resolved {
        cluster_id: "a-cluster".to_owned(),
        registry_url: Some(world.simulator.registry_url()),
        api_url: Some(world.simulator.api_url()),
        ..Resolved::standalone(root.join("sinks"))
    };
    let keys = root.join("keys");
    ReceiverConfig {
        process: Process {
            base_path: base_path(&object.spec.url),
            data_dir: root.join("data"),
            credentials_dir: keys.clone(),
            resyncs_file: keys.join("resyncs"),
            admin_token_file: None,
            keys_dir: keys,
            tls_dir: None,
            drain: Duration::from_secs(5),
            allow_plain_http: false,
        },
        settings: Settings::from_subscription(&object, &resolved).unwrap(),
    }
}

async fn ready(program: &Program) -> Option<StatusCode> {
    let url = format!("http://{}/readyz", program.admin);
    Some(program.get(&url).await?.0)
}

/// The fingerprints of the keys that are loaded for rates.
async fn loaded(program: &Program) -> Vec<String> {
    let status = program.status().await;
    let keys = &status["receiver"]["rules"][0]["keyFingerprints"];
    serde_json::from_value(keys.clone()).unwrap()
}

async fn until_held(pod: &Pod, program: &Program, consumer: &mut Consumer, key: &str) {
    let today = bellhop::simulator::Days::from_today(1);
    let truth = pod.world.control.truth(key, today).unwrap();
    eventually("the consumer holds the newest", async || {
        consumer.catch_up(program).await;
        (consumer.data(key) == Some(&truth)).then_some(())
    })
    .await;
}

fn fingerprint(key: &str) -> String {
    Fingerprint::of(key.as_bytes()).to_string()
}

/// A port that nobody listens on.
fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

/// Waits until no resync runs and nothing is left to read.
async fn at_rest(program: &Program) {
    eventually("nothing is left to read", async || {
        let status = program.status().await;
        let resync = &status["pipeline"]["resync"];
        let over = resync["running"].is_null() && !resync["last"].is_null();
        (over && status["store"]["marks"] == 0).then_some(())
    })
    .await;
}

/// Changes it, and tells nobody.
fn silently(pod: &Pod, key: &str) {
    let nothing = serde_json::Map::new();
    pod.world.control.change(key, &nothing, false).unwrap();
}

fn requests(pod: &Pod) -> Vec<String> {
    let all = pod.world.control.requests(0, usize::MAX).into_iter();
    all.map(|request| request.target).collect()
}

/// Whether a request is for this entity alone.
fn is_read_of(target: &str, key: &str) -> bool {
    let id = key.rsplit('/').next().unwrap();
    target.contains(id)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_is_mounted_makes_it_ready_and_nothing_is_ever_written() {
    let pod = Pod::new().await;
    let program = pod.start().await;
    assert_eq!(ready(&program).await, Some(StatusCode::SERVICE_UNAVAILABLE));
    let key = pod.register().await;
    pod.keys.set([("rate", Some(&format!("{key}\n")))]);
    eventually("it is ready", async || {
        (ready(&program).await == Some(StatusCode::OK)).then_some(())
    })
    .await;
    let rate = pod.rate();
    pod.world.change(&rate);
    until_held(&pod, &program, &mut Consumer::default(), &rate).await;
    let writes = pod.world.control.requests(0, usize::MAX).into_iter();
    let writes = writes.filter(|request| request.method != "GET").count();
    assert_eq!(writes, 1, "the one that made the rule");
    let status = program.status().await;
    let kinds: Vec<&str> = status["conditions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["type"].as_str().unwrap())
        .collect();
    // Rules and credentials are the operator's to judge.
    assert_eq!(kinds, ["Ready", "ReceiverAvailable", "Delivering"]);
    assert_eq!(loaded(&program).await, [fingerprint(&key)]);
    program.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_token_opens_more_than_health_and_metrics() {
    let pod = Pod::new().await;
    pod.keys.set([("admin-token", Some(TOKEN))]);
    let mut config = pod.config.clone();
    config.process.admin_token_file = Some(pod.keys.folder.join("admin-token"));
    pod.tell(&config);
    let program = pod.start().await;
    let ask = async |path: &str, header: Option<(&str, String)>| {
        let mut request = http().get(format!("http://{}{path}", program.admin));
        if let Some((name, value)) = header {
            request = request.header(name, value);
        }
        request.send().await.unwrap().status().as_u16()
    };
    for path in ["/livez", "/metrics"] {
        assert_eq!(ask(path, None).await, 200, "{path}");
    }
    assert_eq!(ask("/readyz", None).await, 503);
    for path in ["/status", "/dead-letters", "/removals", "/anything"] {
        assert_eq!(ask(path, None).await, 401, "{path}");
        let wrong = ("authorization", "Bearer another-token-than-that".to_owned());
        assert_eq!(ask(path, Some(wrong)).await, 401, "{path}");
    }
    let bearer = || Some(("authorization", format!("Bearer {TOKEN}")));
    assert_eq!(ask("/status", bearer()).await, 200);
    // As it arrives through the API server, which keeps `Authorization` for itself.
    let other = || Some(("bellhop-token", TOKEN.to_owned()));
    assert_eq!(ask("/dead-letters", other()).await, 200);
    // Another token, mounted under it.
    pod.keys
        .set([("admin-token", Some("another-token-of-the-operator"))]);
    eventually("the old token is refused", async || {
        (ask("/status", bearer()).await == 401).then_some(())
    })
    .await;
    program.stop().await;
}

/// While the store cannot be opened, the provider is told to come again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_its_store_it_stands_by_until_it_has_one() {
    let pod = Pod::new().await;
    let key = pod.register().await;
    pod.keys.set([("rate", Some(&format!("{key}\n")))]);
    let data = pod.world.folder.path().join("data");
    std::fs::write(&data, "a file where the folder should be").unwrap();
    // The ports have names before there is a store.
    let ports: Vec<String> = (0..3)
        .map(|_| format!("127.0.0.1:{}", free_port()))
        .collect();
    let mut command = pod.command();
    for (flag, port) in ["public", "admin", "feed"].iter().zip(&ports) {
        command.args([format!("--{flag}-listen"), port.clone()]);
    }
    let ask = async |port: usize, path: &str| {
        let url = format!("http://{}{path}", ports[port]);
        let answer = http().get(url).send().await.ok()?;
        let later = answer.headers().contains_key("retry-after");
        Some((answer.status().as_u16(), later, answer.text().await.ok()?))
    };
    let standing_by = async {
        let (status, later, _) = eventually("the public port answers", async || {
            ask(0, "/redeam/rate").await
        })
        .await;
        assert_eq!((status, later), (503, true));
        let (status, _, text) = ask(1, "/readyz").await.unwrap();
        assert_eq!(status, 503, "{text}");
        assert!(
            text.contains("the store") && !text.contains("folder"),
            "{text}"
        );
        assert_eq!(ask(1, "/livez").await.unwrap().0, 200);
        let (_, _, text) = ask(1, "/status").await.unwrap();
        let status: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(status["conditions"][1]["reason"], "StoreUnavailable");
        std::fs::remove_file(&data).unwrap();
    };
    let (program, ()) = tokio::join!(Program::start(command, http()), standing_by);
    let to = format!("http://{}", program.public);
    pod.world.control.deliver_to(Some(to)).unwrap();
    let rate = pod.rate();
    pod.world.change(&rate);
    until_held(&pod, &program, &mut Consumer::default(), &rate).await;
    program.stop().await;
}

/// The operator understands what a receiver says: the key's fingerprint, and how it is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_operator_understands_the_status() {
    let pod = Pod::new().await;
    let key = pod.register().await;
    pod.keys.set([
        ("admin-token", Some(TOKEN)),
        ("rate", Some(&format!("{key}\n"))),
    ]);
    let mut config = pod.config.clone();
    config.process.admin_token_file = Some(pod.keys.folder.join("admin-token"));
    pod.tell(&config);
    // An address of its own: the port is the one that all pods have.
    let address = format!(
        "127.{}.{}.{}",
        fastrand::u8(1..),
        fastrand::u8(1..),
        fastrand::u8(1..255)
    );
    let mut command = pod.command();
    command.args(["--admin-listen", &format!("{address}:8081")]);
    let program = Program::start(command, http()).await;
    let seen = bellhop::controller::pods::Pod {
        name: "shop-0".to_owned(),
        address: Some(address),
        ready: true,
        template: None,
        poke: None,
        ending: false,
        trouble: None,
    };
    let access = ByAddress::new().unwrap();
    let ask = async |token: &str| access.status("shop", &seen, &Secret::new(token)).await;
    let refused = ask("another-token-than-that").await;
    assert_eq!(refused, Err(Unreachable::Refused));
    let answer = ask(TOKEN).await.unwrap();
    let is = Fingerprint::of(key.as_bytes());
    assert!(answer.has_key(NotificationType::Rate, &is));
    assert!(!answer.has_key(NotificationType::Rate, &Fingerprint::of(b"other")));
    assert!(!answer.has_key(NotificationType::Booking, &is));
    assert_eq!(answer.backlog.as_deref(), Some("0"));
    let delivering = answer
        .conditions
        .iter()
        .find(|one| one.kind == "Delivering");
    let delivering = delivering.expect("a condition");
    assert_eq!(
        (&*delivering.status, &*delivering.reason),
        ("True", "DeliveryOk")
    );
    program.stop().await;
    assert_eq!(ask(TOKEN).await, Err(Unreachable::NoAnswer));
}

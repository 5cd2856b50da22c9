//! What the tests stand on: a clock to turn by hand, a store and a registry written down in a
//! list, and HTTP as raw bytes.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bellhop::api::{EntityKey, NotificationType};
use bellhop::clock::{Clock, Ticks, UnixMillis};
use bellhop::metrics::Metrics;
use bellhop::provider::{Registry, RegistryError, Rule, RuleBody};
use bellhop::receiver::{
    KEY_GRACE, KeyChange, KeyRing, Learning, Limits, Receiver, ReceiverOptions, ServerOptions,
    serve,
};
use bellhop::secrets::Secret;
use bellhop::settings::{SignatureScheme, SignatureSettings};
use bellhop::state::{
    Accepted, Claim, DeadLetter, EntityPage, Epoch, EventsGone, MarkClass, NewMark, Notification,
    Sequence, Settled, Settlement, SinkCommit, SinkPosition, State, StateError, Stats, StoredEvent,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

pub const NOW: i64 = 1_735_689_600;
pub const OWNER: &str = "0123456789";

pub fn key_of(kind: NotificationType) -> String {
    format!("key-of-{}", kind.segment())
}

pub struct ManualClock {
    pub wall: AtomicI64,
    pub ticks: AtomicU64,
    turned: watch::Sender<()>,
}

impl ManualClock {
    fn new() -> Self {
        Self {
            wall: AtomicI64::new(NOW * 1000),
            ticks: AtomicU64::new(1_000_000),
            turned: watch::channel(()).0,
        }
    }

    pub fn advance(&self, duration: Duration) {
        let millis = duration.as_millis() as u64;
        self.wall.fetch_add(millis as i64, Ordering::SeqCst);
        self.ticks.fetch_add(millis, Ordering::SeqCst);
        self.turned.send_replace(());
    }
}

#[async_trait]
impl Clock for ManualClock {
    fn now(&self) -> UnixMillis {
        UnixMillis(self.wall.load(Ordering::SeqCst))
    }
    fn ticks(&self) -> Ticks {
        Ticks(self.ticks.load(Ordering::SeqCst))
    }
    async fn sleep(&self, duration: Duration) {
        let mut turned = self.turned.subscribe();
        let until = self.ticks().after(duration);
        while self.ticks() < until {
            let _ = turned.changed().await;
        }
    }
}

/// A store that only accepts, and says what it was told to say.
#[derive(Default)]
pub struct FakeState {
    pub accepted: Mutex<Vec<Notification>>,
    pub says: Mutex<VecDeque<Result<Accepted, StateError>>>,
    pub facts: Mutex<BTreeMap<String, Vec<u8>>>,
    pub fact_writes: AtomicU64,
    /// While locked, accepts wait.
    pub gate: tokio::sync::Mutex<()>,
}

impl FakeState {
    pub fn keys(&self) -> Vec<Option<String>> {
        self.accepted
            .lock()
            .unwrap()
            .iter()
            .map(|accepted| accepted.key.as_ref().map(ToString::to_string))
            .collect()
    }
}

#[async_trait]
impl State for FakeState {
    fn epoch(&self) -> &Epoch {
        unreachable!("the receiver only accepts")
    }
    async fn accept(&self, notification: Notification) -> Result<Accepted, StateError> {
        let says = self.says.lock().unwrap().pop_front();
        let known = notification.key.is_some();
        self.accepted.lock().unwrap().push(notification);
        drop(self.gate.lock().await);
        says.unwrap_or(Ok(if known {
            Accepted::Marked
        } else {
            Accepted::DeadLetter
        }))
    }
    async fn mark(&self, _: Vec<NewMark>) -> Result<(), StateError> {
        unreachable!("the receiver only accepts")
    }
    async fn claim(&self, _: MarkClass) -> Result<Option<Claim>, StateError> {
        unreachable!("the receiver only accepts")
    }
    async fn claimable(&self) {}
    async fn settle(&self, _: &Claim, _: Settlement) -> Result<Settled, StateError> {
        unreachable!("the receiver only accepts")
    }
    fn head(&self) -> watch::Receiver<Sequence> {
        unreachable!("the receiver only accepts")
    }
    async fn list(
        &self,
        _: Option<NotificationType>,
        _: Option<&EntityKey>,
        _: usize,
    ) -> Result<EntityPage, StateError> {
        unreachable!("the receiver only accepts")
    }
    async fn known(&self, _: NotificationType, _: &[&str]) -> Result<Vec<EntityKey>, StateError> {
        unreachable!("the receiver only accepts")
    }
    async fn entity(&self, _: &EntityKey) -> Result<Option<StoredEvent>, StateError> {
        unreachable!("the receiver only accepts")
    }
    async fn events(
        &self,
        _: Sequence,
        _: usize,
        _: usize,
    ) -> Result<Result<Vec<StoredEvent>, EventsGone>, StateError> {
        unreachable!("the receiver only accepts")
    }
    async fn kept(&self, _: Sequence, _: usize, _: usize) -> Result<Vec<StoredEvent>, StateError> {
        unreachable!("the receiver only accepts")
    }
    async fn event(&self, _: Sequence) -> Result<Option<StoredEvent>, StateError> {
        unreachable!("the receiver only accepts")
    }
    async fn oldest(&self) -> Result<Sequence, StateError> {
        unreachable!("the receiver only accepts")
    }
    async fn sink(&self, _: &str) -> Result<SinkPosition, StateError> {
        unreachable!("the receiver only accepts")
    }
    async fn commit_sink(&self, _: &str, _: SinkCommit) -> Result<(), StateError> {
        unreachable!("the receiver only accepts")
    }
    async fn dead_letters(&self, _: u64, _: usize) -> Result<Vec<DeadLetter>, StateError> {
        unreachable!("the receiver only accepts")
    }
    async fn replay(&self, _: u64, _: bool) -> Result<bool, StateError> {
        unreachable!("the receiver only accepts")
    }
    async fn fact(&self, name: &str) -> Result<Option<Vec<u8>>, StateError> {
        Ok(self.facts.lock().unwrap().get(name).cloned())
    }
    async fn put_fact(&self, name: &str, value: Option<Vec<u8>>) -> Result<(), StateError> {
        self.fact_writes.fetch_add(1, Ordering::SeqCst);
        let mut facts = self.facts.lock().unwrap();
        match value {
            Some(value) => facts.insert(name.to_owned(), value),
            None => facts.remove(name),
        };
        Ok(())
    }
    fn stats(&self) -> Stats {
        Stats::default()
    }
}

/// A registry with one answer for every type.
#[derive(Default)]
pub struct FakeRegistry {
    /// URL and key; `None`: the registry is down.
    pub rule: Mutex<Option<(String, String)>>,
    pub reads: AtomicU64,
}

#[async_trait]
impl Registry for FakeRegistry {
    async fn get(&self, _: NotificationType) -> Result<Option<Rule>, RegistryError> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        match &*self.rule.lock().unwrap() {
            Some((url, key)) => Ok(Some(Rule {
                url: url.clone(),
                disabled: false,
                config: serde_json::Map::new(),
                security_key: Some(Secret::new(key.clone())),
                updated_on: None,
            })),
            None => Err(RegistryError::Unavailable {
                reason: "down".to_owned(),
                after: None,
            }),
        }
    }
    async fn create(&self, _: NotificationType, _: &RuleBody) -> Result<Rule, RegistryError> {
        unreachable!("the receiver never writes rules")
    }
    async fn update(&self, _: NotificationType, _: &RuleBody) -> Result<Rule, RegistryError> {
        unreachable!("the receiver never writes rules")
    }
    async fn delete(&self, _: NotificationType) -> Result<(), RegistryError> {
        unreachable!("the receiver never writes rules")
    }
}

/// How a rig differs from the usual one.
pub struct Setup {
    pub scheme: SignatureScheme,
    pub limits: Limits,
    pub server: ServerOptions,
    pub folder: Option<std::path::PathBuf>,
    pub with_keys: bool,
    pub types: Vec<NotificationType>,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            scheme: SignatureScheme::Auto,
            limits: Limits::default(),
            server: ServerOptions {
                header_timeout: Duration::from_secs(5),
                body_timeout: Duration::from_millis(300),
                ..ServerOptions::default()
            },
            folder: None,
            with_keys: true,
            types: NotificationType::ALL.to_vec(),
        }
    }
}

/// A running receiver.
pub struct Rig {
    pub address: SocketAddr,
    pub state: Arc<FakeState>,
    pub clock: Arc<ManualClock>,
    pub keys: Arc<KeyRing>,
    pub registry: Arc<FakeRegistry>,
    pub changes: mpsc::Receiver<KeyChange>,
    pub receiver: Receiver,
    pub metrics: Metrics,
    pub token: CancellationToken,
    pub server: tokio::task::JoinHandle<Result<(), String>>,
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.token.cancel();
    }
}

pub async fn rig(setup: Setup) -> Rig {
    let clock = Arc::new(ManualClock::new());
    let state = Arc::new(FakeState::default());
    let registry = Arc::new(FakeRegistry::default());
    let metrics = Metrics::new();
    let (sender, changes) = mpsc::channel(16);
    let learning = Learning {
        registry: registry.clone(),
        ours: Box::new(|url| url.ends_with(OWNER)),
    };
    let keys = Arc::new(KeyRing::new(
        clock.clone(),
        KEY_GRACE,
        setup.folder,
        Some(learning),
        sender,
        &metrics,
    ));
    if setup.with_keys {
        for kind in NotificationType::ALL {
            keys.set(kind, vec![Secret::new(key_of(kind))]);
        }
    }
    let token = CancellationToken::new();
    tokio::spawn(keys.clone().run(token.clone()));
    let options = ReceiverOptions {
        types: setup.types,
        owner: OWNER.to_owned(),
        base_path: "/redeam".to_owned(),
        signature: SignatureSettings {
            scheme: setup.scheme,
            max_age: Duration::from_hours(24),
            max_skew: Duration::from_mins(5),
            ledger_span: Duration::from_hours(1),
        },
        limits: setup.limits,
    };
    let receiver = Receiver::new(
        options,
        state.clone(),
        keys.clone(),
        clock.clone(),
        &metrics,
    );
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(serve(
        listener,
        receiver.router(),
        setup.server,
        token.clone(),
    ));
    Rig {
        address,
        state,
        clock,
        keys,
        registry,
        changes,
        receiver,
        metrics,
        token,
        server,
    }
}

impl Rig {
    /// Sends `body` and reads the answer.
    pub async fn post(&self, path: &str, body: impl AsRef<[u8]>) -> Answer {
        self.raw(&request("POST", path, body.as_ref())).await
    }

    /// Sends these bytes on a connection of their own and reads until the server ends it.
    pub async fn raw(&self, bytes: &[u8]) -> Answer {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        // The server may answer and close before all is sent.
        let _ = stream.write_all(bytes).await;
        read_answer(&mut stream).await
    }
}

pub fn request(method: &str, path: &str, body: &[u8]) -> Vec<u8> {
    let mut bytes = format!(
        "{method} {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

#[derive(Debug, Default)]
pub struct Answer {
    /// 0: the connection ended without an answer.
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

/// Reads one answer, by its `content-length`.
pub async fn read_answer(stream: &mut (impl AsyncReadExt + Unpin)) -> Answer {
    let reading = async {
        let mut bytes = Vec::new();
        while !bytes.ends_with(b"\r\n\r\n") {
            match stream.read_u8().await {
                Ok(byte) => bytes.push(byte),
                Err(_) => return Answer::default(),
            }
        }
        let mut answer = Answer {
            head: String::from_utf8(bytes).unwrap(),
            ..Answer::default()
        };
        answer.status = answer.head[9..12].parse().unwrap();
        let length = answer
            .header("content-length")
            .unwrap_or("0")
            .parse()
            .unwrap();
        let mut body = vec![0; length];
        let _ = stream.read_exact(&mut body).await;
        answer.body = String::from_utf8(body).unwrap();
        answer
    };
    tokio::time::timeout(Duration::from_secs(20), reading)
        .await
        .expect("an answer within 20 s")
}

/// HMAC-SHA256 by another implementation than the one under test.
pub fn sign(key: &str, timestamp: i64, token: &str) -> String {
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, key.as_bytes());
    hex::encode(aws_lc_rs::hmac::sign(
        &key,
        format!("{timestamp}{token}").as_bytes(),
    ))
}

pub fn signature(key: &str, timestamp: i64, token: &str) -> String {
    format!(
        r#"{{"sum":"{}","timestamp":{timestamp},"token":"{token}"}}"#,
        sign(key, timestamp, token)
    )
}

/// A notification of `kind` as the provider would send it.
pub fn notification(kind: NotificationType, token: &str) -> String {
    signed(kind, &key_of(kind), NOW, token)
}

pub fn signed(kind: NotificationType, key: &str, timestamp: i64, token: &str) -> String {
    let fields = kind.identifier_fields().iter();
    let ids = fields
        .map(|field| format!(r#""{field}":"{field}-1","#))
        .collect::<Vec<_>>()
        .concat();
    format!(
        r#"{{{ids}"operation":"updated","signature":{}}}"#,
        signature(key, timestamp, token)
    )
}

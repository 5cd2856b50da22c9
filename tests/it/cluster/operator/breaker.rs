//! A breaker that every call of a pass goes through, to the API server and to the registry: it counts
//! them, and lets one of them fail or be the last one of its process, before its effect or after.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bellhop::api::NotificationType;
use bellhop::controller::providers::{HttpProviders, Providers};
use bellhop::provider::credentials::CredentialSource;
use bellhop::provider::{Registry, RegistryError, Rule, RuleBody};
use bellhop::registration::conflict::Account;
use bellhop::secrets::Fingerprint;
use kube::Client;
use serde_json::{Value, json};
use tokio::sync::{Notify, watch};

use super::rig::OTHER_KEY;

/// How one call breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Break {
    /// An error, and nothing happened.
    FailBefore,
    /// An error, and it happened all the same.
    FailAfter,
    /// The process dies, and nothing happened.
    DieBefore,
    /// The process dies, and it happened.
    DieAfter,
}

pub const BREAKS: [Break; 4] = [
    Break::FailBefore,
    Break::FailAfter,
    Break::DieBefore,
    Break::DieAfter,
];

/// Counts the calls of passes, and breaks one of them.
#[derive(Default)]
pub struct Breaker {
    at: Mutex<Option<(usize, Break)>>,
    calls: Mutex<Vec<String>>,
    pub died: Notify,
    /// The next delete at the registry is the process' last call, and takes effect after this time.
    pub late_delete: Mutex<Option<Duration>>,
    refused: Mutex<Vec<(Request, u16)>>,
    /// Whether reads of a Secret are forbidden.
    secrets_forbidden: AtomicBool,
    /// Calls that break in some other way than by their number, each once.
    named: Mutex<Vec<(&'static str, Break)>>,
    /// Watches wait as long as this is true: what is seen is what was listed.
    blind: watch::Sender<bool>,
}

/// A kind of request to the API server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    Watch,
    /// The first event of a watch that had begun well: the answer itself is 200.
    Event,
    List,
    Other,
}

impl Breaker {
    pub fn at(number: usize, how: Break) -> Arc<Self> {
        Arc::new(Self {
            at: Mutex::new(Some((number, how))),
            ..Self::default()
        })
    }

    /// Breaks the next call of this name; said twice for one name, the next two.
    pub fn break_next(&self, what: &'static str, how: Break) {
        self.named.lock().unwrap().push((what, how));
    }

    /// How many of them are still to come.
    pub fn to_break(&self) -> usize {
        self.named.lock().unwrap().len()
    }

    /// Whether watches that begin from now on wait.
    pub fn blind(&self, blind: bool) {
        self.blind.send_replace(blind);
    }

    async fn sight(&self) {
        let mut blind = self.blind.subscribe();
        let _ = blind.wait_for(|blind| !blind).await;
    }

    fn named(&self, what: &str) -> Option<Break> {
        let mut named = self.named.lock().unwrap();
        let at = named.iter().position(|(one, _)| *one == what)?;
        Some(named.remove(at).1)
    }

    /// Answers the next `times` requests of a kind with this status.
    pub fn refuse(&self, what: Request, status: u16, times: usize) {
        let mut refused = self.refused.lock().unwrap();
        refused.extend(std::iter::repeat_n((what, status), times));
    }

    /// Whether reads of a Secret by its name are answered with 403 from now on.
    pub fn forbid_secrets(&self, forbid: bool) {
        self.secrets_forbidden.store(forbid, Ordering::SeqCst);
    }

    /// How many of them are still to come.
    pub fn to_refuse(&self) -> usize {
        self.refused.lock().unwrap().len()
    }

    fn refusal(&self, what: Request) -> Option<u16> {
        let mut refused = self.refused.lock().unwrap();
        let at = refused.iter().position(|(one, _)| *one == what)?;
        Some(refused.remove(at).1)
    }

    /// The calls so far.
    pub fn calls(&self) -> Vec<String> {
        self.calls.lock().unwrap().clone()
    }

    async fn pass<T, E>(
        &self,
        what: String,
        call: impl Future<Output = Result<T, E>>,
        broken: impl FnOnce() -> E,
    ) -> Result<T, E> {
        let named = self.named(&what);
        let numbered = {
            let mut calls = self.calls.lock().unwrap();
            let number = calls.len();
            calls.push(what);
            let at = *self.at.lock().unwrap();
            at.filter(|(at, _)| *at == number).map(|(_, how)| how)
        };
        let how = numbered.or(named);
        match how {
            None => call.await,
            Some(Break::FailBefore) => Err(broken()),
            Some(Break::FailAfter) => {
                let _ = call.await;
                Err(broken())
            }
            Some(Break::DieBefore) => self.die().await,
            Some(Break::DieAfter) => {
                let _ = call.await;
                self.die().await
            }
        }
    }

    async fn die<T>(&self) -> T {
        self.died.notify_one();
        std::future::pending().await
    }
}

/// A client whose calls go through the breaker: all but watches and lists, which no pass makes.
pub(super) fn broken_client(inner: Client, breaker: Arc<Breaker>) -> Client {
    let namespace = inner.default_namespace().to_owned();
    let service = tower::service_fn(move |request: http::Request<kube::client::Body>| {
        let (inner, breaker) = (inner.clone(), breaker.clone());
        async move {
            let path = request.uri().path().to_owned();
            let below = path.split("/namespaces/").nth(1);
            let list = below.is_some_and(|below| below.matches('/').count() == 1);
            let query = request.uri().query().unwrap_or_default().to_owned();
            let kind = match request.method() == http::Method::GET && list {
                true if query.contains("watch=true") => Request::Watch,
                true => Request::List,
                false => Request::Other,
            };
            let secret = request.method() == http::Method::GET && path.contains("/secrets/");
            if secret && breaker.secrets_forbidden.load(Ordering::SeqCst) {
                return Ok(refusal(403));
            }
            if let Some(status) = breaker.refusal(kind) {
                return Ok(refusal(status));
            }
            if kind == Request::Watch {
                breaker.sight().await;
                if let Some(status) = breaker.refusal(Request::Event) {
                    return Ok(error_event(status));
                }
            }
            if kind != Request::Other {
                return inner.send(request).await;
            }
            let end: Vec<&str> = path.rsplit('/').take(2).collect();
            let what = format!("{} {}/{}", request.method(), end[1], end[0]);
            let broken = || kube::Error::Service("the connection broke".into());
            breaker.pass(what, inner.send(request), broken).await
        }
    });
    Client::new(service, namespace)
}

/// As the API server words it.
fn refusal(status: u16) -> http::Response<kube::client::Body> {
    answer(status, &failure(status))
}

/// The same inside of a watch, which then ends.
fn error_event(status: u16) -> http::Response<kube::client::Body> {
    answer(200, &json!({ "type": "ERROR", "object": failure(status) }))
}

fn failure(status: u16) -> Value {
    json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": "refused by the test", "reason": "Test", "code": status
    })
}

fn answer(status: u16, body: &Value) -> http::Response<kube::client::Body> {
    let body = format!("{body}\n").into_bytes();
    http::Response::builder()
        .status(status)
        .header("Content-Type", "application/json")
        .body(kube::client::Body::from(body))
        .unwrap()
}

/// Two accounts at two providers, told apart by their keys.
pub(super) struct BrokenProviders {
    pub(super) inner: HttpProviders,
    pub(super) other: HttpProviders,
    pub(super) breaker: Arc<Breaker>,
}

impl Providers for BrokenProviders {
    fn registry(&self, account: &Account, credentials: Arc<CredentialSource>) -> Arc<dyn Registry> {
        let other = account.api_key == Fingerprint::of(OTHER_KEY.as_bytes());
        let providers = if other { &self.other } else { &self.inner };
        Arc::new(BrokenRegistry {
            inner: providers.registry(account, credentials),
            breaker: self.breaker.clone(),
        })
    }
}

struct BrokenRegistry {
    inner: Arc<dyn Registry>,
    breaker: Arc<Breaker>,
}

fn lost() -> RegistryError {
    RegistryError::Unavailable {
        reason: "no answer in 5 s".to_owned(),
        after: None,
    }
}

#[async_trait]
impl Registry for BrokenRegistry {
    async fn get(&self, kind: NotificationType) -> Result<Option<Rule>, RegistryError> {
        let what = format!("registry get {kind}");
        self.breaker.pass(what, self.inner.get(kind), lost).await
    }

    async fn create(&self, kind: NotificationType, body: &RuleBody) -> Result<Rule, RegistryError> {
        let what = format!("registry create {kind}");
        let call = self.inner.create(kind, body);
        self.breaker.pass(what, call, lost).await
    }

    async fn update(&self, kind: NotificationType, body: &RuleBody) -> Result<Rule, RegistryError> {
        let what = format!("registry update {kind}");
        let call = self.inner.update(kind, body);
        self.breaker.pass(what, call, lost).await
    }

    async fn delete(&self, kind: NotificationType) -> Result<(), RegistryError> {
        let what = format!("registry delete {kind}");
        let late = self.breaker.late_delete.lock().unwrap().take();
        if let Some(delay) = late {
            // The process dies with this call on its way, and the provider sees it much later.
            let inner = self.inner.clone();
            tokio::spawn(async move {
                tokio::time::sleep(delay).await;
                inner.delete(kind).await.unwrap();
            });
            return self.breaker.die().await;
        }
        self.breaker.pass(what, self.inner.delete(kind), lost).await
    }
}

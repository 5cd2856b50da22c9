//! The probe of the public URL, on the operator's side: out through the internet, and back in
//! through our receiver, or else the hop that broke.
//!
//! Owns: one probe from name to proof, its limits, and what its end is called. The words that
//! operator and receiver exchange are in [`crate::api::probe`]; what one failure counts, and when
//! the next probe is due, in [`track`]; the probes of many subscriptions in [`rounds`].
//!
//! # What bounds it
//! The `url` comes from whoever may write the resource, and the operator stands inside the
//! cluster: it must not become somebody's way in.
//! - A connection goes to an address, never to a name, and to no address before [`is_public`] has
//!   seen it: what DNS says a moment later cannot matter. No proxy, no redirect.
//! - One probe at a time per subscription, [`AT_ONCE`] in all; each step has its time, an answer
//!   its size.
//! - What is told is the class of what broke, one of a fixed set; of an answer, nothing.
//!
//! Never here: the API credentials or a rule's key; a detached task; trust in an answer without
//! proof.

mod dial;
pub mod rounds;
pub mod track;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use tokio::sync::Semaphore;

use super::address::is_public;
use super::check::Resolver;
use crate::api::Reason;
use crate::api::probe::{Answer, Nonce, Question};
use crate::metrics::Metrics;
use crate::secrets::Secret;

pub use dial::Trust;

/// Probes at a time; more wait.
pub const AT_ONCE: usize = 16;

/// How long each step may take.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The look-up of the name.
    pub resolve: Duration,
    /// The attempt to connect to one address; at most three are tried.
    pub connect: Duration,
    /// From the connection to the whole answer, TLS included. The provider gives up after 60 s;
    /// a receiver that takes a tenth of that has trouble already.
    pub answer: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            resolve: Duration::from_secs(5),
            connect: Duration::from_secs(4),
            answer: Duration::from_secs(6),
        }
    }
}

/// Sends probes. Cheap to share.
pub struct Prober {
    resolver: Arc<dyn Resolver>,
    tls: Arc<rustls::ClientConfig>,
    allow_private: bool,
    limits: Limits,
    running: Mutex<BTreeSet<String>>,
    permits: Semaphore,
    ended: Family<[(&'static str, &'static str); 1], Counter>,
}

impl Prober {
    /// A prober. `allow_private` is `--probe-private`.
    ///
    /// # Errors
    /// The certificates of the trusted authorities cannot be loaded.
    pub fn new(
        resolver: Arc<dyn Resolver>,
        trust: Trust,
        allow_private: bool,
        limits: Limits,
        metrics: &Metrics,
    ) -> Result<Self, String> {
        let ended = Family::default();
        metrics.register(|registry| {
            registry.register(
                "registration_probes",
                "Probes of public URLs that ended, by what they found",
                Family::clone(&ended),
            );
        });
        Ok(Self {
            resolver,
            tls: dial::tls_config(trust)?,
            allow_private,
            limits,
            running: Mutex::default(),
            permits: Semaphore::new(AT_ONCE),
            ended,
        })
    }

    /// Sends one probe to a rule's URL and says what is then true of the condition Reachable:
    /// [`Reason::Reachable`], or the hop that broke. `None`: one of this subscription is under way.
    /// May be dropped at any time.
    pub async fn probe(&self, uid: &str, rule_url: &str, key: &Secret) -> Option<Reason> {
        let _running = Running::new(&self.running, uid)?;
        let _permit = self.permits.acquire().await.ok()?;
        let found = match self.ask(rule_url, key).await {
            Ok(reason) | Err(reason) => reason,
        };
        let labels = [("reason", found.as_str())];
        self.ended.get_or_create(&labels).inc();
        Some(found)
    }

    async fn ask(&self, rule_url: &str, key: &Secret) -> Result<Reason, Reason> {
        let target = dial::Target::of(rule_url).ok_or(Reason::NameNotResolved)?;
        let addresses = self.addresses(target.host()).await?;
        let stream = dial::connect(&addresses, target.port(), self.limits.connect).await?;
        let question = Question::new(nonce()?, target.place());
        let asked = question.header(key);
        let answer = dial::exchange(stream, &target, &asked, self.tls.clone());
        let (status, body) = tokio::time::timeout(self.limits.answer, answer)
            .await
            .map_err(|_| Reason::AnswerTimedOut)??;
        Ok(judge(status, Answer::read(&body, &question, key)))
    }

    /// The addresses of a host that may be dialled.
    async fn addresses(&self, host: &str) -> Result<Vec<std::net::IpAddr>, Reason> {
        let looked_up = tokio::time::timeout(self.limits.resolve, self.resolver.resolve(host));
        let mut found = match looked_up.await {
            Ok(Ok(found)) => found,
            Ok(Err(error)) => return Err(dial::name_trouble(&error)),
            Err(_) => return Err(Reason::NameLookupFailed),
        };
        if found.is_empty() {
            return Err(Reason::NameNotResolved);
        }
        if !self.allow_private {
            found.retain(|address| is_public(*address));
        }
        if found.is_empty() {
            return Err(Reason::AddressRefused);
        }
        Ok(found)
    }
}

/// What an answer means. Only a proof makes it Reachable; an answer of our receiver that cannot be
/// proven (it has no key, or another one) is believed to say what to look at.
fn judge(status: u16, answer: Option<Answer>) -> Reason {
    match (status, answer) {
        (_, Some(Answer::Routed)) => Reason::Reachable,
        (_, Some(Answer::Unrouted)) => Reason::PathRewritten,
        (503, Some(Answer::NoKey)) => Reason::ProbeKeyMissing,
        (403, Some(Answer::OtherKey)) => Reason::AnotherReceiver,
        (429, _) => Reason::ProbeBusy,
        (300..=399, _) => Reason::Redirected,
        (401 | 403 | 407, _) => Reason::AccessRefused,
        (404 | 410, _) => Reason::PathNotRouted,
        (502..=504, _) => Reason::BackendUnavailable,
        _ => Reason::WrongAnswer,
    }
}

fn nonce() -> Result<Nonce, Reason> {
    let mut nonce = Nonce::default();
    // Without randomness nothing can be proven; it is as if the probe had not been sent.
    aws_lc_rs::rand::fill(&mut nonce).map_err(|_| Reason::ProbePending)?;
    Ok(nonce)
}

/// A new probe key: random, and used for nothing but probes.
///
/// # Errors
/// The machine has no randomness.
pub fn new_key() -> Result<Secret, String> {
    let mut bytes = [0; 32];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| "no random bytes to be had".to_owned())?;
    Ok(Secret::new(hex::encode(bytes)))
}

/// That a subscription's probe is under way, until it is dropped.
struct Running<'a> {
    all: &'a Mutex<BTreeSet<String>>,
    uid: &'a str,
}

impl<'a> Running<'a> {
    fn new(all: &'a Mutex<BTreeSet<String>>, uid: &'a str) -> Option<Self> {
        let mut running = all.lock().unwrap_or_else(PoisonError::into_inner);
        // Made only if it is the first: dropping it would end the other one's.
        running.insert(uid.to_owned()).then(|| Self { all, uid })
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let mut running = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        running.remove(self.uid);
    }
}

//! A provider, key store, gate, resync note and clock in one, written from the provider reference
//! (§2, §8) and shared by nothing in `src`. It counts every call and can break any one of them,
//! before or after its effect, as an error or as the death of the process.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use bellhop::api::NotificationType;
use bellhop::clock::{Clock, Ticks, UnixMillis};
use bellhop::metrics::Metrics;
use bellhop::provider::{Registry, RegistryError, Rule, RuleBody};
use bellhop::registration::{Executor, Gate, KeyStore, RegistrationMetrics, Resyncs, StoreError};
use bellhop::secrets::{Fingerprint, Secret};
use serde_json::{Map, Value};
use tokio::sync::Notify;

pub const OWNER: &str = "0123456789";

/// How one call breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// An error, and nothing happened.
    FailBefore,
    /// An error (a timeout), and it happened all the same.
    FailAfter,
    /// The process dies, and nothing happened.
    CrashBefore,
    /// The process dies, and it happened.
    CrashAfter,
}

pub const FAULTS: [Fault; 4] = [
    Fault::FailBefore,
    Fault::FailAfter,
    Fault::CrashBefore,
    Fault::CrashAfter,
];

/// The reference's open questions.
#[derive(Debug, Clone, Copy, Default)]
#[allow(clippy::struct_excessive_bools, reason = "independent switches")]
pub struct Switches {
    /// POST on an existing rule replaces it, with a new key, instead of 409.
    pub post_replaces: bool,
    /// The POST answer has no key.
    pub post_without_key: bool,
    /// No answer ever has a key.
    pub never_a_key: bool,
    /// PUT makes a new key.
    pub put_regenerates: bool,
    /// PUT keeps the `config` keys that it is not given.
    pub put_merges: bool,
    /// The answer to PUT has no key.
    pub put_without_key: bool,
    /// `config` keys other than `operations` are dropped in silence.
    pub drops_config: bool,
    /// `operations` come back in another order.
    pub reorders: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub struct StoredRule {
    pub url: String,
    pub disabled: bool,
    pub config: Map<String, Value>,
    pub key: String,
}

#[derive(Default)]
pub struct State {
    pub rules: BTreeMap<NotificationType, StoredRule>,
    pub keys: BTreeMap<NotificationType, String>,
    pub due: BTreeSet<NotificationType>,
    pub begun: BTreeSet<NotificationType>,
    pub switches: Switches,
    pub receivers_ready: bool,
    pub unauthorized: bool,
    pub unsupported: BTreeSet<NotificationType>,
    /// What always fails, by call name and type.
    pub broken: BTreeSet<(&'static str, NotificationType)>,
    /// Somebody else's rules may be written to.
    pub adoption: bool,
    pub fault: Option<(usize, Fault)>,
    pub calls: Vec<(&'static str, NotificationType)>,
    pub violations: Vec<String>,
    pub made: usize,
}

#[derive(Default)]
pub struct World {
    state: Mutex<State>,
    pub died: Notify,
    expire: Notify,
}

enum Broken {
    No,
    Before,
    After,
}

impl World {
    pub fn new(state: State) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(state),
            ..Self::default()
        })
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// A new process over what persists.
    pub fn executor(self: &Arc<Self>) -> Executor {
        Executor::new(
            self.clone(),
            self.clone(),
            self.clone(),
            self.clone(),
            self.clone(),
            RegistrationMetrics::new(&Metrics::new()),
        )
    }

    /// Makes a waiting executor's deadline pass.
    pub fn expire(&self) {
        self.expire.notify_one();
    }

    async fn call<T>(
        &self,
        name: &'static str,
        kind: NotificationType,
        effect: impl FnOnce(&mut State) -> T,
    ) -> Result<T, Option<T>> {
        let (fault, mut effect) = {
            let mut state = self.state();
            let number = state.calls.len();
            state.calls.push((name, kind));
            let fault = match state.fault {
                Some((at, fault)) if at == number => Some(fault),
                _ if state.broken.contains(&(name, kind)) => Some(Fault::FailBefore),
                _ => None,
            };
            (fault, Some(effect))
        };
        let mut run = || effect.take().map(|effect| effect(&mut self.state()));
        let broken = match fault {
            None => Broken::No,
            Some(Fault::FailBefore) => Broken::Before,
            Some(Fault::FailAfter) => Broken::After,
            Some(crash) => {
                if crash == Fault::CrashAfter {
                    run();
                }
                self.died.notify_one();
                return std::future::pending().await;
            }
        };
        match broken {
            Broken::No => Ok(run().expect("not run yet")),
            Broken::Before => Err(None),
            Broken::After => Err(run()),
        }
    }
}

fn lost() -> RegistryError {
    RegistryError::Unavailable {
        reason: "no answer in 30 s".to_owned(),
        after: None,
    }
}

impl State {
    fn refusal(&self, kind: NotificationType) -> Option<RegistryError> {
        if self.unauthorized {
            return Some(RegistryError::Unauthorized { status: 401 });
        }
        self.unsupported
            .contains(&kind)
            .then(|| RegistryError::UnsupportedType {
                kind,
                path: format!("/{}s", kind.segment()),
            })
    }

    fn new_key(&mut self) -> String {
        self.made += 1;
        format!("made-key-{}", self.made)
    }

    fn is_foreign(&self, kind: NotificationType) -> bool {
        self.rules
            .get(&kind)
            .is_some_and(|rule| rule.url.rsplit('/').next() != Some(OWNER))
    }

    fn answer(&self, kind: NotificationType, with_key: bool) -> Option<Rule> {
        self.rules.get(&kind).map(|rule| {
            let mut config = rule.config.clone();
            if self.switches.reorders
                && let Some(Value::Array(operations)) = config.get_mut("operations")
            {
                operations.reverse();
            }
            Rule {
                url: rule.url.clone(),
                disabled: rule.disabled,
                config,
                security_key: (with_key && !self.switches.never_a_key)
                    .then(|| Secret::new(rule.key.clone())),
                updated_on: Some(format!("{}", self.calls.len())),
            }
        })
    }

    /// 400 for what the reference calls malformed, and the promises that every write must keep.
    fn check(&mut self, kind: NotificationType, body: &RuleBody) -> Option<RegistryError> {
        let refused = |reason: &str| {
            Some(RegistryError::Refused {
                reason: reason.to_owned(),
            })
        };
        if !body.url.starts_with("https://") {
            return refused("400: url must be https");
        }
        let operations = body.config.get("operations").and_then(Value::as_array);
        if kind == NotificationType::ChannelBinding && operations.is_none_or(Vec::is_empty) {
            return refused("400: operations");
        }
        if self.is_foreign(kind) && !self.adoption {
            self.violations
                .push(format!("{kind}: somebody else's rule was written to"));
        }
        if !body.disabled {
            let safe = self
                .rules
                .get(&kind)
                .is_some_and(|rule| self.keys.get(&kind) == Some(&rule.key));
            if !safe {
                self.violations
                    .push(format!("{kind}: live before its key was stored"));
            }
            if !self.due.contains(&kind) {
                self.violations.push(format!(
                    "{kind}: written to while live, and no resync noted"
                ));
            }
        }
        None
    }
}

#[async_trait]
impl Registry for World {
    async fn get(&self, kind: NotificationType) -> Result<Option<Rule>, RegistryError> {
        self.call("get", kind, |state| match state.refusal(kind) {
            Some(error) => Err(error),
            None => Ok(state.answer(kind, true)),
        })
        .await
        .unwrap_or_else(|_| Err(lost()))
    }

    async fn create(&self, kind: NotificationType, body: &RuleBody) -> Result<Rule, RegistryError> {
        self.call("create", kind, |state| {
            if let Some(error) = state.refusal(kind).or_else(|| state.check(kind, body)) {
                return Err(error);
            }
            if state.rules.contains_key(&kind) && !state.switches.post_replaces {
                return Err(RegistryError::Exists);
            }
            let key = state.new_key();
            let mut config = body.config.clone();
            if state.switches.drops_config {
                config.retain(|key, _| key == "operations");
            }
            state.rules.insert(
                kind,
                StoredRule {
                    url: body.url.clone(),
                    disabled: body.disabled,
                    config,
                    key,
                },
            );
            let with_key = !state.switches.post_without_key;
            Ok(state.answer(kind, with_key).expect("just made"))
        })
        .await
        .unwrap_or_else(|_| Err(lost()))
    }

    async fn update(&self, kind: NotificationType, body: &RuleBody) -> Result<Rule, RegistryError> {
        self.call("update", kind, |state| {
            if let Some(error) = state.refusal(kind) {
                return Err(error);
            }
            if !state.rules.contains_key(&kind) {
                return Err(RegistryError::NotFound);
            }
            if let Some(error) = state.check(kind, body) {
                return Err(error);
            }
            let switches = state.switches;
            let key = switches.put_regenerates.then(|| state.new_key());
            let rule = state.rules.get_mut(&kind).expect("checked");
            rule.url.clone_from(&body.url);
            rule.disabled = body.disabled;
            let mut config = body.config.clone();
            if switches.drops_config {
                config.retain(|key, _| key == "operations");
            }
            if switches.put_merges {
                rule.config.extend(config);
            } else {
                rule.config = config;
            }
            if let Some(key) = key {
                rule.key = key;
            }
            Ok(state
                .answer(kind, !switches.put_without_key)
                .expect("checked"))
        })
        .await
        .unwrap_or_else(|_| Err(lost()))
    }

    async fn delete(&self, kind: NotificationType) -> Result<(), RegistryError> {
        self.call("delete", kind, |state| {
            if let Some(error) = state.refusal(kind) {
                return Err(error);
            }
            if state.is_foreign(kind) {
                state
                    .violations
                    .push(format!("{kind}: somebody else's rule was deleted"));
            }
            state.rules.remove(&kind);
            Ok(())
        })
        .await
        .unwrap_or_else(|_| Err(lost()))
    }
}

fn full() -> StoreError {
    StoreError("the key file cannot be written: no space; free some".to_owned())
}

#[async_trait]
impl KeyStore for World {
    async fn store(&self, kind: NotificationType, key: &Secret) -> Result<(), StoreError> {
        self.call("store", kind, |state| {
            state.keys.insert(kind, key.expose().to_owned());
        })
        .await
        .map_err(|_| full())
    }

    async fn known(&self, kind: NotificationType) -> Result<Option<Fingerprint>, StoreError> {
        self.call("known", kind, |state| {
            let key = state.keys.get(&kind)?;
            Some(Fingerprint::of(key.as_bytes()))
        })
        .await
        .map_err(|_| full())
    }

    async fn forget(&self, kind: NotificationType) -> Result<(), StoreError> {
        self.call("forget", kind, |state| {
            state.keys.remove(&kind);
        })
        .await
        .map_err(|_| full())
    }
}

#[async_trait]
impl Gate for World {
    async fn loaded(&self, kind: NotificationType, key: &Fingerprint) -> bool {
        let ready = self
            .call("loaded", kind, |state| {
                let stored = state
                    .keys
                    .get(&kind)
                    .map(|key| Fingerprint::of(key.as_bytes()));
                state.receivers_ready && stored.as_ref() == Some(key)
            })
            .await;
        if !matches!(ready, Ok(true)) {
            if ready.is_err() {
                self.expire();
            }
            std::future::pending::<()>().await;
        }
        true
    }

    fn waiting_for(&self) -> String {
        "0 of 1 receivers ready".to_owned()
    }
}

#[async_trait]
impl Resyncs for World {
    async fn due(&self, kind: NotificationType) -> Result<(), StoreError> {
        self.call("due", kind, |state| {
            state.due.insert(kind);
        })
        .await
        .map_err(|_| full())
    }

    async fn live(&self, kind: NotificationType) {
        let _ = self
            .call("live", kind, |state| {
                if state.rules.get(&kind).is_none_or(|rule| rule.disabled) {
                    state
                        .violations
                        .push(format!("{kind}: a resync began before the rule was live"));
                }
                if state.due.remove(&kind) {
                    state.begun.insert(kind);
                }
            })
            .await;
    }
}

#[async_trait]
impl Clock for World {
    fn now(&self) -> UnixMillis {
        UnixMillis(1_700_000_000_000)
    }

    fn ticks(&self) -> Ticks {
        Ticks(0)
    }

    async fn sleep(&self, _duration: Duration) {
        self.expire.notified().await;
    }
}

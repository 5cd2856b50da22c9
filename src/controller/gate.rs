//! The gate of an operator with receivers: a rule is enabled when they have its key.
//!
//! Owns: the wait: poke the pods, ask them, until at least one is ready and all ready ones say that
//! they have the key. It is given up when the subscription changed meanwhile: the change may be what
//! mends the receivers, and must not wait for them.
//!
//! Never here: how long is waited (the executor limits it); a place in the queue that a wait holds:
//! pods that do not start must not keep others waiting.

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use async_trait::async_trait;

use super::build::digest;
use super::fleet::{Fleet, Key};
use super::queue::{Parking, Place};
use super::receivers::Receivers;
use super::session::Inputs;
use super::vault::Vault;
use crate::api::NotificationType;
use crate::clock::Clock;
use crate::registration::Gate;
use crate::secrets::Fingerprint;

/// How often the receivers are asked.
const EVERY: Duration = Duration::from_millis(500);

/// How often pods are poked that do not come to have the keys.
const POKE_AGAIN: Duration = Duration::from_secs(10);

/// See the module.
pub struct KeyGate {
    key: Key,
    receivers: Arc<Receivers>,
    fleet: Arc<Fleet>,
    vault: Arc<Vault>,
    clock: Arc<dyn Clock>,
    parking: Parking,
    parked: Mutex<Weak<Place>>,
    /// What the pass that waits rests on, and whether that changed.
    pass: Mutex<(Option<Inputs>, bool)>,
    /// Stands for what is mounted beside the owned Secret.
    mounted: Mutex<String>,
}

impl KeyGate {
    /// Of one subscription.
    pub fn new(
        key: Key,
        receivers: Arc<Receivers>,
        fleet: Arc<Fleet>,
        vault: Arc<Vault>,
        clock: Arc<dyn Clock>,
        parking: Parking,
    ) -> Arc<Self> {
        Arc::new(Self {
            key,
            receivers,
            fleet,
            vault,
            clock,
            parking,
            parked: Mutex::default(),
            pass: Mutex::default(),
            mounted: Mutex::default(),
        })
    }

    /// A pass begins.
    pub fn begin(&self, inputs: Inputs) {
        *self.pass.lock().unwrap_or_else(PoisonError::into_inner) = (Some(inputs), false);
    }

    /// Whether a wait of this pass was given up.
    pub fn gave_up(&self) -> bool {
        self.pass.lock().unwrap_or_else(PoisonError::into_inner).1
    }

    /// What the pods mount beside the owned Secret has this digest.
    pub fn mounts(&self, digest: String) {
        *self.mounted.lock().unwrap_or_else(PoisonError::into_inner) = digest;
    }

    /// Has the pods look at what they mount, if that is something else than they were told of last.
    pub async fn poke(&self) {
        self.poke_for(0).await;
    }

    /// The same once more, if that is something else or `time` is another one.
    async fn poke_for(&self, time: u64) {
        let version = self.vault.version().await.unwrap_or_default();
        let mounted = self
            .mounted
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let value = digest(format!("{version} {mounted} {time}").as_bytes());
        self.receivers.poke(&self.key, &value).await;
    }

    /// The pass waits until this is dropped, for however many keys.
    fn park(&self) -> Arc<Place> {
        let mut parked = self.parked.lock().unwrap_or_else(PoisonError::into_inner);
        parked.upgrade().unwrap_or_else(|| {
            let place = Arc::new(self.parking.enter());
            *parked = Arc::downgrade(&place);
            place
        })
    }

    fn superseded(&self) -> bool {
        let now = self.fleet.get(&self.key);
        let now = now.map(|now| Inputs::of(now.object.metadata(), now.changes));
        let mut pass = self.pass.lock().unwrap_or_else(PoisonError::into_inner);
        pass.1 |= pass.0 != now;
        pass.1
    }
}

#[async_trait]
impl Gate for KeyGate {
    async fn loaded(&self, kind: NotificationType, key: &Fingerprint) -> bool {
        let begun = self.clock.ticks();
        let mut parked = None;
        loop {
            if self.receivers.have_key(&self.key, kind, key).await {
                return true;
            }
            if self.superseded() {
                return false;
            }
            // Also a pod that came up meanwhile, and one that looked too early.
            let waited = self.clock.ticks().since(begun);
            self.poke_for(waited.as_secs() / POKE_AGAIN.as_secs()).await;
            parked.get_or_insert_with(|| self.park());
            self.clock.sleep(EVERY).await;
        }
    }

    fn waiting_for(&self) -> String {
        self.receivers.waiting_for(&self.key)
    }
}

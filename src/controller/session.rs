//! What is kept in memory of one subscription between its passes.
//!
//! Owns: the clients and the executor for its account, and what the last pass rested on. All of it
//! can be made anew at any time.
//!
//! Never here: anything that a restart must not lose.

use std::sync::Arc;
use std::time::Duration;

use kube::api::ObjectMeta;
use kube::{Api, ResourceExt as _};
use sha2::{Digest as _, Sha256};

use super::Context;
use super::dereference::Dereferenced;
use super::fleet::{Key, Object};
use super::gate::KeyGate;
use super::owned::is_owned;
use super::pace::Pace;
use super::providers::Watched;
use super::receivers::Found;
use super::teller::Said;
use super::vault::Vault;
use crate::api::Reason;
use crate::api::v1alpha1::WebhookSubscription;
use crate::clock::Ticks;
use crate::provider::credentials::CredentialSource;
use crate::registration::conflict::Account;
use crate::registration::{Executor, Gate};
use crate::secrets::Credentials;

/// The longest value that `status.acknowledged` takes, in characters.
const ACKNOWLEDGED: usize = 1024;

/// The annotations that people and GitOps set.
pub const PAUSED: &str = "bellhop.dev/paused";
/// Any new value is one pass.
pub const RECONCILE_AT: &str = "bellhop.dev/reconcile-at";
/// Any new value is one rotation.
pub const ROTATE_KEYS: &str = "bellhop.dev/rotate-keys";

/// What an annotation says, as far as a status can repeat it.
pub fn annotation(subscription: &WebhookSubscription, name: &str) -> Option<String> {
    let said = subscription.annotations().get(name)?;
    Some(said.chars().take(ACKNOWLEDGED).collect())
}

/// What a pass rests on: while none of it has changed and no look is due, there is nothing to do.
/// Finalizers are not in it: the watch shows our own one late, and every look puts it back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inputs {
    uid: Option<String>,
    generation: Option<i64>,
    deleting: bool,
    annotations: [Option<String>; 3],
    changes: u64,
}

impl Inputs {
    /// Of an object, with the number of changes around it ([`super::fleet::Snapshot::changes`]).
    pub fn of(metadata: &ObjectMeta, changes: u64) -> Self {
        let annotations = metadata.annotations.as_ref();
        Self {
            uid: metadata.uid.clone(),
            generation: metadata.generation,
            deleting: metadata.deletion_timestamp.is_some(),
            annotations: [PAUSED, RECONCILE_AT, ROTATE_KEYS]
                .map(|name| annotations.and_then(|all| all.get(name)).cloned()),
            changes,
        }
    }
}

/// Asking the provider about one account.
pub struct Line {
    /// With which credentials.
    pub credentials: Credentials,
    /// Which account.
    pub account: Account,
    /// Its rules, each write noted first.
    pub registry: Arc<Watched>,
    /// What carries plans out.
    pub executor: Executor,
}

impl Line {
    /// A line to the provider with these credentials, which must be usable.
    ///
    /// # Errors
    /// When a header cannot carry them.
    pub fn new(
        context: &Context,
        account: Account,
        credentials: &Credentials,
        vault: &Arc<Vault>,
        gate: Arc<dyn Gate>,
    ) -> Result<Self, String> {
        let source = CredentialSource::memory(credentials.clone(), context.clock.clone())
            .map_err(|error| error.to_string())?;
        let registry = context.providers.registry(&account, source);
        let registry = Watched::new(registry, vault.clone());
        let executor = Executor::new(
            registry.clone(),
            vault.clone(),
            gate,
            vault.clone(),
            context.clock.clone(),
            context.registration_metrics.clone(),
        );
        Ok(Self {
            credentials: credentials.clone(),
            account,
            registry,
            executor,
        })
    }
}

/// See the module.
#[derive(Default)]
pub struct Session {
    /// What the last pass rested on.
    pub last: Option<Inputs>,
    /// A pass of this process has begun to work on it: what its status said at the start no longer
    /// tells whether anything is left to do.
    pub begun: bool,
    /// The owned Secret.
    pub vault: Option<Arc<Vault>>,
    /// The account in use.
    pub line: Option<Line>,
    /// The status that was written last.
    pub said: Option<Said>,
    /// What it says of the URL's reachability.
    pub looked: Option<Reason>,
    /// The UID of the object whose deletion is through: the watch may still show it for a moment.
    pub deleted: Option<String>,
    /// Another operator's unfinished write may still take effect until then.
    pub late_until: Option<Ticks>,
    /// What rules wait for, with receivers.
    pub gate: Option<Arc<KeyGate>>,
    /// The objects of its receivers are kept as they should be.
    pub tended: bool,
    /// What its status says of the receivers.
    pub found: Option<Found>,
    /// When its numbers were written.
    pub pace: Pace,
}

impl Session {
    /// Whether the watch shows another status than was written last. It must be said anew: nothing
    /// else would, before the next look.
    pub fn is_overwritten_in(&mut self, seen: &Object) -> bool {
        match (seen, &mut self.said) {
            (Object::Known(seen), Some(said)) => said.is_overwritten_in(seen),
            _ => false,
        }
    }

    /// The owned Secret, as it was just read.
    pub async fn vault(
        &mut self,
        context: &Context,
        key: &Key,
        subscription: &Arc<WebhookSubscription>,
        read: &Dereferenced,
    ) -> Arc<Vault> {
        let found = read
            .owned
            .as_ref()
            .filter(|found| is_owned(&found.metadata));
        if let Some(vault) = &self.vault {
            vault.load(subscription, found).await;
            return vault.clone();
        }
        let vault = Arc::new(Vault::new(
            Api::namespaced(context.client.clone(), &key.namespace),
            subscription,
            found,
            context.clock.clone(),
            context.identity.clone(),
        ));
        self.vault = Some(vault.clone());
        vault
    }

    /// Has what rules wait for with receivers, for a pass that rests on `inputs`.
    pub fn begin_gate(&mut self, context: &Context, key: &Key, inputs: &Inputs) {
        let (Some(tender), Some(vault)) = (&context.tender, &self.vault) else {
            return;
        };
        let gate = self.gate.get_or_insert_with(|| {
            KeyGate::new(
                key.clone(),
                tender.receivers.clone(),
                context.fleet.clone(),
                vault.clone(),
                context.clock.clone(),
                context.parking.clone(),
            )
        });
        gate.begin(inputs.clone());
    }

    /// The line for these credentials: the one there is, if it is the same.
    ///
    /// # Errors
    /// When a header cannot carry them.
    pub fn line(
        &mut self,
        context: &Context,
        account: Account,
        credentials: &Credentials,
        vault: &Arc<Vault>,
    ) -> Result<&Line, String> {
        let line = self
            .line
            .take()
            .filter(|line| line.account == account && line.credentials == *credentials);
        let line = if let Some(line) = line {
            line
        } else {
            let gate: Arc<dyn Gate> = match &self.gate {
                Some(gate) => gate.clone(),
                None => vault.clone(),
            };
            Line::new(context, account, credentials, vault, gate)?
        };
        Ok(self.line.insert(line))
    }
}

/// The earliest first look after a start: an operator that starts again and again asks nothing.
const FIRST_LOOK: Duration = Duration::from_secs(20);

/// How much time first looks take for each subscription that there is.
const LOOK_EACH: Duration = Duration::from_secs(10);

/// When the first look of a subscription falls after a start. What somebody changed while no operator
/// led is found by it: with few subscriptions soon, with many some time within the interval. By its
/// UID, so that thousands do not ask at once, however often the operator starts.
pub fn first_look(
    subscription: &WebhookSubscription,
    interval: Duration,
    fleet: usize,
) -> Duration {
    let uid = subscription.uid().unwrap_or_default();
    let hash = Sha256::digest(uid.as_bytes());
    let part = u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]]);
    let fleet = u32::try_from(fleet).unwrap_or(u32::MAX);
    let within = interval.min(FIRST_LOOK + LOOK_EACH.saturating_mul(fleet));
    let delay = within.mul_f64(f64::from(part) / f64::from(u32::MAX));
    delay.max(FIRST_LOOK).min(interval)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::sample::subscription;
    use super::*;

    #[test]
    fn an_annotation_is_no_longer_than_a_status_takes() {
        let object = subscription(|object| {
            object["metadata"]["annotations"] = json!({ RECONCILE_AT: "é".repeat(5_000) });
        });
        let said = annotation(&object, RECONCILE_AT).expect("said");
        assert_eq!(said.chars().count(), 1024);
        assert_eq!(annotation(&object, ROTATE_KEYS), None);
    }

    fn look(number: usize, fleet: usize) -> Duration {
        let uid = json!(format!("uid-{number}"));
        let object = subscription(|object| object["metadata"]["uid"] = uid);
        let delay = first_look(&object, Duration::from_hours(1), fleet);
        let again = first_look(&object, Duration::from_hours(1), fleet);
        assert_eq!(delay, again, "the same after each start");
        delay
    }

    #[test]
    fn first_looks_of_many_are_spread_evenly_over_the_interval() {
        let mut quarters = [0_u32; 4];
        for number in 0..1_000 {
            let delay = look(number, 1_000);
            quarters[(delay.as_secs() / 901) as usize] += 1;
        }
        assert!(
            quarters.iter().all(|count| (200..300).contains(count)),
            "{quarters:?}"
        );
    }

    #[test]
    fn first_looks_of_few_come_soon() {
        for number in 0..100 {
            let alone = look(number, 1).as_secs();
            assert!((20..=30).contains(&alone), "{alone}");
            assert!(look(number, 10) <= Duration::from_mins(2));
        }
    }

    #[test]
    fn no_first_look_is_later_than_any_other() {
        let object = subscription(|_| {});
        let short = Duration::from_secs(5);
        assert_eq!(first_look(&object, short, 1), short);
    }
}

//! Step two: what was read becomes checked values, or a precise refusal. Pure.
//!
//! Owns: which mistakes stop a subscription, in which order they are told. Never here: IO; a secret
//! in a refusal.

use std::fmt::Write as _;
use std::time::Duration;

use k8s_openapi::api::core::v1::Secret as KubeSecret;
use kube::ResourceExt as _;

use super::dereference::Dereferenced;
use super::owned::{Content, is_owned, secret_name};
use crate::api::v1alpha1::{Environment, WebhookSubscription};
use crate::api::validate::validate as mistakes;
use crate::api::{Condition, ConditionType, Owner, Reason};
use crate::provider::credentials::usable;
use crate::registration::DesiredRules;
use crate::registration::conflict::Account;
use crate::secrets::{Credentials, Secret};

/// A subscription that can be worked on.
#[derive(Debug, Clone)]
pub struct Checked {
    /// What should be at the provider.
    pub desired: DesiredRules,
    /// `registration.driftCheckInterval`.
    pub interval: Duration,
    /// What the user's Secret holds.
    pub live: Credentials,
    /// The account that these belong to.
    pub account: Account,
}

/// Why it cannot be worked on: the condition that says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused(pub Condition);

/// Checks.
///
/// # Errors
/// The first thing that stands in the way.
pub fn validate(
    subscription: &WebhookSubscription,
    read: &Dereferenced,
    owner: Owner,
) -> Result<Checked, Refused> {
    accepted(subscription, read)?;
    let live = credentials(subscription, read.credentials.as_ref())?;
    Ok(Checked {
        desired: DesiredRules::of(&subscription.spec, owner),
        interval: interval(subscription),
        account: account(subscription.spec.environment, &live),
        live,
    })
}

/// The account that credentials belong to.
pub fn account(environment: Environment, credentials: &Credentials) -> Account {
    Account {
        environment,
        api_key: credentials.api_key.fingerprint(),
    }
}

/// The interval, or its default where it was not understood (which is refused elsewhere).
pub fn interval(subscription: &WebhookSubscription) -> Duration {
    let interval = &subscription.spec.registration.drift_check_interval;
    interval.get().unwrap_or(Duration::from_hours(1))
}

fn accepted(subscription: &WebhookSubscription, read: &Dereferenced) -> Result<(), Refused> {
    let found = mistakes(subscription);
    if let Some((first, others)) = found.split_first() {
        let mut about = first.to_string();
        if !others.is_empty() {
            // Writing to a String cannot fail.
            let _ = write!(about, " (and {} more)", others.len());
        }
        return Err(invalid(&about));
    }
    let owned = secret_name(&subscription.name_any());
    if subscription.spec.credentials_secret_ref.name == owned {
        return Err(invalid(&format!(
            "spec.credentialsSecretRef.name: {owned} is the name of a Secret that Bellhop makes itself; give the credentials another name"
        )));
    }
    if read
        .owned
        .as_ref()
        .is_some_and(|found| !is_owned(&found.metadata))
    {
        return Err(invalid(&format!(
            "the Secret {owned}, which Bellhop needs for itself, exists and is not its own; rename or remove it"
        )));
    }
    Ok(())
}

fn invalid(about: &str) -> Refused {
    Refused(Condition::new(ConditionType::Accepted, false, Reason::Invalid).about(about))
}

/// The user's credentials.
///
/// # Errors
/// What is missing.
pub fn credentials(
    subscription: &WebhookSubscription,
    found: Option<&KubeSecret>,
) -> Result<Credentials, Refused> {
    let name = &subscription.spec.credentials_secret_ref.name;
    let missing = |about: String| {
        let kind = ConditionType::CredentialsValid;
        Refused(Condition::new(kind, false, Reason::SecretMissing).about(&about))
    };
    let Some(found) = found else {
        return Err(missing(format!("Secret {name} is not there")));
    };
    let key = |key: &str| {
        let bytes = found.data.as_ref().and_then(|data| data.get(key));
        let bytes = bytes.ok_or_else(|| missing(format!("Secret {name} has no key {key}")))?;
        let text = std::str::from_utf8(&bytes.0).unwrap_or_default();
        // Editors and `echo` end a file with a newline; a key never does.
        Ok(Secret::new(text.trim_end_matches(['\r', '\n'])))
    };
    let credentials = Credentials {
        api_key: key("apiKey")?,
        api_secret: key("apiSecret")?,
    };
    usable(&credentials).map_err(|error| missing(format!("Secret {name}: {error}")))?;
    Ok(credentials)
}

/// What the owned Secret says; nothing when it is not ours.
pub fn owned(read: &Dereferenced) -> Content {
    let ours = read
        .owned
        .as_ref()
        .filter(|found| is_owned(&found.metadata));
    ours.map(Content::of).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use k8s_openapi::ByteString;
    use kube::api::ObjectMeta;
    use serde_json::json;

    use super::super::sample::subscription;
    use super::*;

    fn secret(entries: &[(&str, &str)]) -> KubeSecret {
        let entry = |(key, value): &(&str, &str)| {
            ((*key).to_owned(), ByteString(value.as_bytes().to_vec()))
        };
        KubeSecret {
            metadata: ObjectMeta::default(),
            data: Some(entries.iter().map(entry).collect::<BTreeMap<_, _>>()),
            ..KubeSecret::default()
        }
    }

    fn check(subscription: &WebhookSubscription, read: &Dereferenced) -> Result<Checked, Refused> {
        validate(subscription, read, Owner::of("c", "ns", "shop"))
    }

    fn refused(subscription: &WebhookSubscription, read: &Dereferenced) -> (Reason, String) {
        let Refused(condition) = check(subscription, read).expect_err("refused");
        (condition.reason, condition.message)
    }

    #[test]
    fn a_right_one_passes_without_the_newline_of_its_secret() {
        let read = Dereferenced {
            credentials: Some(secret(&[("apiKey", "k\n"), ("apiSecret", "s")])),
            owned: None,
        };
        let checked = check(&subscription(|_| {}), &read).expect("accepted");
        assert_eq!(checked.live.api_key.expose(), "k");
        assert_eq!(checked.desired.rules.len(), 7);
        assert_eq!(checked.interval, Duration::from_hours(1));
    }

    #[test]
    fn each_refusal_names_what_to_mend() {
        let good = secret(&[("apiKey", "k"), ("apiSecret", "s")]);
        let with = |credentials: Option<KubeSecret>| Dereferenced {
            credentials,
            owned: None,
        };
        let plain = subscription(|_| {});
        for (read, word) in [
            (with(None), "Secret keys is not there"),
            (
                with(Some(secret(&[("apiKey", "k")]))),
                "has no key apiSecret",
            ),
            (
                with(Some(secret(&[("apiKey", "two words"), ("apiSecret", "s")]))),
                "`apiKey` has spaces",
            ),
        ] {
            let (reason, message) = refused(&plain, &read);
            assert_eq!(reason, Reason::SecretMissing);
            assert!(message.contains(word), "{message}");
            assert!(!message.contains("two words"), "{message}");
        }
        let foreign = Dereferenced {
            credentials: Some(good.clone()),
            owned: Some(secret(&[])),
        };
        let taken = subscription(|object| {
            object["spec"]["credentialsSecretRef"]["name"] = json!("shop-bellhop");
        });
        let wrong = subscription(|object| object["spec"]["url"] = json!("http://x/"));
        for (object, read, word) in [
            (&plain, &foreign, "is not its own"),
            (&taken, &with(Some(good.clone())), "Bellhop makes itself"),
            (&wrong, &with(Some(good.clone())), "spec.url"),
        ] {
            let (reason, message) = refused(object, read);
            assert_eq!(reason, Reason::Invalid);
            assert!(message.contains(word), "{message}");
        }
    }
}

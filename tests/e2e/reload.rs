//! What a receiver takes over while it runs. Oracle: the rules and answers as the provider has them,
//! and the pod, which stays the same.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::kubectl::eventually;
use crate::load::rotate;
use crate::provider::{API_SECRET, Provider};
use crate::shop::{NAME, Shop};
use crate::world::World;

/// From a changed Secret to the new key in use.
const IN_USE: Duration = Duration::from_secs(5);

/// Changes one rate, and says whether its notification got a 200 at once.
fn is_taken(provider: &Provider<'_>) -> bool {
    let before = provider.counts();
    provider.load_of(&["rate"], 1, 20);
    let counts = provider.counts().since(before);
    assert_eq!(counts.made, 1);
    counts.delivered == 1
}

/// A new rule is enabled when the receiver says that it has its key, which it can have from nowhere
/// but the mounted Secret: nothing is notified before. So the time without a live rule, which the
/// operator tells, holds the whole way from the Secret to the receiver, and some calls more.
pub fn a_new_key_and_other_settings_need_no_restart(world: &World) {
    let provider = world.provider();
    let shop = Shop::open(world, "reload");
    shop.subscribe(|_| {});
    shop.until_ready();
    shop.until_equal(&provider.truth(&["rate"]), 60);
    let (pod, keys) = (identity(&shop), provider.rules());

    rotate(&shop, "1");
    let message = eventually("the rotation is told", 60, || {
        let status = shop.get(&format!("whs {NAME}"))["status"].take();
        let conditions = status["conditions"].as_array().cloned().unwrap_or_default();
        let told = conditions.iter().find(|one| one["reason"] == "KeysRotated");
        let told = told.ok_or_else(|| status.to_string())?;
        Ok(told["message"].as_str().unwrap().to_owned())
    });
    println!("without a restart: {message}");
    for kind in ["Rate", "Booking"] {
        let gap = gap(&message, kind);
        assert!(gap < IN_USE, "{message}");
    }
    assert!(is_taken(&provider), "signed with the new key");
    let now = provider.rules();
    for (kind, rule) in &keys {
        assert_ne!(rule["securityKey"], now[kind]["securityKey"], "{kind}");
    }
    assert_eq!(identity(&shop), pod, "without a restart");

    // Other settings as well, by the same way.
    shop.patch(&json!({ "spec": { "fetch": { "requestsPerSecond": 40 } } }));
    let begun = Instant::now();
    eventually("other settings are taken over", 60, || {
        let log = shop.kubectl(&format!("logs {NAME}-0"));
        let told = log.matches("other settings are taken over").count();
        if told == 1 { Ok(()) } else { Err(log) }
    });
    println!(
        "other settings without a restart: {} ms",
        begun.elapsed().as_millis()
    );
    shop.until_ready();
    assert!(is_taken(&provider), "with other settings");
    shop.until_equal(&provider.truth(&["rate"]), 60);
    assert_eq!(identity(&shop), pod, "without a restart");
    other_credentials(&provider, &shop);
    assert_eq!(identity(&shop), pod, "without a restart");
    shop.unsubscribe();
    shop.close();
}

/// Credentials that the provider refuses, and the right ones again: what was accepted meanwhile is
/// read afterwards.
fn other_credentials(provider: &Provider<'_>, shop: &Shop<'_>) {
    let is = |secret: &str| {
        let data = json!({ "stringData": { "apiSecret": secret } });
        shop.kubectl(&format!(
            "patch secret redeam-keys --type=merge --patch={data}"
        ));
    };
    is("mistyped");
    shop.kubectl(&format!(
        "wait whs/{NAME} --for=condition=CredentialsValid=false --timeout=60s"
    ));
    assert!(is_taken(provider), "accepted, whatever the credentials");
    is(API_SECRET);
    shop.kubectl(&format!(
        "wait whs/{NAME} --for=condition=CredentialsValid --timeout=60s"
    ));
    shop.until_equal(&provider.truth(&["rate"]), 90);
    shop.until_ready();
}

/// From `without a live rule were Rate for 12 ms, Booking for 9 ms: …`.
fn gap(message: &str, kind: &str) -> Duration {
    let after = message.split(&format!("{kind} for ")).nth(1);
    let number = after.and_then(|after| after.split(' ').next()?.parse().ok());
    Duration::from_millis(number.unwrap_or_else(|| panic!("no gap of {kind}: {message}")))
}

/// Which pod it is, and how often its program has started.
fn identity(shop: &Shop<'_>) -> (Value, Value) {
    let pod = shop.receiver();
    let restarts = pod["status"]["containerStatuses"][0]["restartCount"].clone();
    (pod["metadata"]["uid"].clone(), restarts)
}

//! What a receiver takes over while it runs. Oracle: the rules and answers as the provider has them,
//! its record of what it was asked when, the certificate that a TLS client sees, and the pod, which
//! stays the same.

use std::time::{Duration, Instant};

use hmac::{Hmac, KeyInit as _, Mac as _};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::{Value, json};

use crate::account::Delivery;
use crate::kubectl::eventually;
use crate::load::{rotate, under_load};
use crate::provider::{API_SECRET, Provider};
use crate::shop::{NAME, Shop, TLS};
use crate::world::World;

/// From the end of the old rule to the new key in use.
const IN_USE: Duration = Duration::from_secs(5);

/// What the operator counts into the time without a live rule, and the provider does not see: a note
/// of it before, the wait for its turn to call, and the ways of the calls.
const BESIDE: Duration = Duration::from_secs(2);

/// A kubelet looks at what a pod mounts once a minute, or half a minute later.
const MOUNTED: Duration = Duration::from_secs(150);

/// Changes one rate, and says whether its notification got a 200 at once.
fn is_taken(provider: &Provider<'_>) -> bool {
    let before = provider.counts();
    provider.change_a_rate();
    let counts = provider.counts().since(before);
    assert_eq!(counts.made, 1);
    counts.delivered == 1
}

pub fn a_new_key_and_other_settings_need_no_restart(world: &World) {
    let provider = world.provider();
    let shop = Shop::open(world, "reload");
    shop.subscribe(|_| {});
    shop.until_ready();
    shop.until_equal(&provider.truth(&["rate"]), 60);
    let pod = identity(&shop);
    // What follows takes longer than it does until the kubelet brings it.
    let renewed = Renewed::begin(world, &shop);
    another_key(&provider, &shop);
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
    renewed.until_served(world, &shop);
    assert_eq!(identity(&shop), pod, "without a restart");
    shop.unsubscribe();
    shop.close();
}

/// A new rule is enabled when the receiver says that it has its key, which it can have from nowhere
/// but the mounted Secret. So the time without a live rule holds the whole way from the Secret to the
/// receiver. What the operator tells of it is held against the provider's record, and what the key is
/// good for against the first notification that is signed with it.
fn another_key(provider: &Provider<'_>, shop: &Shop<'_>) {
    let before = provider.rules();
    let (message, counts) = under_load("key in use", provider, shop, || {
        rotate(shop, "1");
        eventually("the rotation is told", 60, || told(shop))
    });
    println!("without a restart: {message}");
    assert_eq!(counts.never, 0, "{counts}");
    let (requests, deliveries) = (provider.requests(), provider.deliveries());
    for (kind, name, path) in [
        ("rate", "Rate", "/registry/v1/rates"),
        ("booking", "Booking", "/registry/v1/bookings"),
    ] {
        let key = provider.rules()[kind]["securityKey"].clone();
        assert_ne!(key, before[kind]["securityKey"], "{kind}");
        let anew = Anew::of(&requests, path);
        let (seen, told) = (millis(anew.live - anew.gone), gap(&message, name));
        let used = first_use(&deliveries, kind, key.as_str().unwrap(), anew.enabled);
        let used = millis(used - anew.gone);
        println!("{kind}: without a live rule for {seen:?} at the provider, in use after {used:?}");
        // Clocks are read in whole milliseconds.
        assert!(told + millis(10) >= seen, "{kind}: {seen:?}; {message}");
        assert!(told < seen + BESIDE, "{kind}: {seen:?}; {message}");
        assert!(
            told < IN_USE && used < IN_USE,
            "{kind}: {used:?}; {message}"
        );
    }
    assert!(is_taken(provider), "signed with the new key");
}

/// What the status says of the last rotation.
fn told(shop: &Shop<'_>) -> Result<String, String> {
    let status = shop.get(&format!("whs {NAME}"))["status"].take();
    let conditions = status["conditions"].as_array().cloned().unwrap_or_default();
    let told = conditions.iter().find(|one| one["reason"] == "KeysRotated");
    let told = told.ok_or_else(|| status.to_string())?;
    Ok(told["message"].as_str().unwrap().to_owned())
}

/// A rule that was made anew, as the provider saw it; Unix milliseconds.
struct Anew {
    /// When it was asked to delete the old one.
    gone: i64,
    /// When it was asked to enable the new one.
    enabled: i64,
    /// When it had answered that.
    live: i64,
}

impl Anew {
    fn of(requests: &[Value], path: &str) -> Self {
        let at = |one: &Value| one["atMs"].as_i64().unwrap();
        let mut calls = requests.iter().filter(|one| one["target"] == path);
        let delete = calls.find(|one| one["method"] == "DELETE").unwrap();
        let enables = |one: &&Value| {
            let body: Value =
                serde_json::from_str(one["body"].as_str().unwrap()).unwrap_or_default();
            one["method"] == "PUT" && one["status"] == 200 && body["disabled"] != json!(true)
        };
        let put = calls.find(enables).unwrap();
        Self {
            gone: at(delete),
            enabled: at(put),
            live: at(put) + put["latencyMs"].as_f64().unwrap() as i64,
        }
    }
}

/// When the first notification of a new rule had its 200. All of them are signed with its key, and
/// none had to come again.
fn first_use(deliveries: &[Delivery], kind: &str, key: &str, enabled: i64) -> i64 {
    let of = |one: &&Delivery| one.entity.split('/').next() == Some(kind);
    let new = |one: &&Delivery| of(one) && one.created_ms > enabled;
    let mut answered = None;
    for delivery in deliveries.iter().filter(new) {
        assert!(is_signed(&delivery.body, key), "{delivery:?}");
        let at_once = delivery.got_through() && delivery.attempts.len() == 1;
        assert!(at_once, "{delivery:?}");
        let attempt = &delivery.attempts[0];
        answered = answered.or(Some(attempt.at_ms + attempt.latency_ms as i64));
    }
    answered.unwrap_or_else(|| panic!("no notification of a {kind} after the rotation"))
}

/// Whether a notification is signed with this key.
fn is_signed(body: &str, key: &str) -> bool {
    let body: Value = serde_json::from_str(body).unwrap();
    let signature = &body["signature"];
    let (timestamp, token) = (&signature["timestamp"], signature["token"].as_str());
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(key.as_bytes()).unwrap();
    mac.update(format!("{timestamp}{}", token.unwrap()).as_bytes());
    signature["sum"] == hex::encode(mac.finalize().into_bytes())
}

fn millis(count: i64) -> Duration {
    Duration::from_millis(u64::try_from(count).unwrap())
}

/// Another certificate in the Secret that the receiver serves TLS with.
struct Renewed {
    at: Instant,
    certificate: CertificateDer<'static>,
}

impl Renewed {
    fn begin(world: &World, shop: &Shop<'_>) -> Self {
        let before = served(world, shop).unwrap();
        let secret = world.authority.secret(&shop.namespace, TLS, NAME);
        let pem = secret["stringData"]["tls.crt"].as_str().unwrap();
        let certificate = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
        assert_ne!(before, certificate);
        world.cluster.kubectl.apply(&secret.to_string());
        Self {
            at: Instant::now(),
            certificate,
        }
    }

    fn until_served(self, world: &World, shop: &Shop<'_>) {
        let left = MOUNTED.saturating_sub(self.at.elapsed()).as_secs();
        eventually("the renewed certificate is served", left, || {
            let served = served(world, shop)?;
            let renewed = served == self.certificate;
            renewed.then_some(()).ok_or("the old one is".to_owned())
        });
        let seconds = self.at.elapsed().as_secs();
        println!("a renewed certificate is served within {seconds} s, without a restart");
    }
}

/// The certificate that somebody sees who trusts the authority of this run.
fn served(world: &World, shop: &Shop<'_>) -> Result<CertificateDer<'static>, String> {
    let name = format!("{NAME}.{}.svc", shop.namespace);
    let served = shop.forward(8080)?.certificate(&name, &world.authority.pem);
    served.map_err(|error| error.to_string())
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

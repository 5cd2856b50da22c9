//! The client against the simulated provider, which shares no code with it. Oracle: the
//! simulator's truth, and the switch that each test turns.

use std::sync::Arc;

use bellhop::api::NotificationType;
use bellhop::api::entity::EntityKey;
use bellhop::clock::{Clock, SystemClock};
use bellhop::metrics::Metrics;
use bellhop::provider::base::BaseUrl;
use bellhop::provider::client::{ClientSettings, HttpClient};
use bellhop::provider::credentials::CredentialSource;
use bellhop::provider::registry::{RegistryClient, RegistryOptions};
use bellhop::provider::reseller::ResellerClient;
use bellhop::provider::{
    Answer, Read, ReadError, Reads, Registry, RegistryError, RuleBody, Window,
};
use bellhop::secrets::{Credentials, Secret};
use bellhop::simulator::{Config, Days, Simulator, TlsPair};
use serde_json::Value;

struct Provider {
    sim: Simulator,
    registry: RegistryClient,
    reseller: ResellerClient,
}

async fn start() -> Provider {
    let config = Config {
        seed: 11,
        ..Config::default()
    };
    start_with(config, ClientSettings::default()).await
}

async fn start_with(config: Config, settings: ClientSettings) -> Provider {
    let sim = Simulator::start(config).await.unwrap();
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let registry = BaseUrl::parse(&sim.registry_url(), false).unwrap();
    let api = BaseUrl::parse(&sim.api_url(), false).unwrap();
    let http = HttpClient::new(
        settings,
        &[&registry, &api],
        Arc::clone(&clock),
        &Metrics::new(),
    )
    .unwrap();
    let credentials = Credentials {
        api_key: Secret::new("demo-key"),
        api_secret: Secret::new("demo-secret"),
    };
    let credentials = CredentialSource::memory(credentials, Arc::clone(&clock)).unwrap();
    let options = RegistryOptions {
        requests_per_second: 10_000,
        burst: 10_000,
        ..RegistryOptions::default()
    };
    Provider {
        registry: RegistryClient::new(
            Arc::clone(&http),
            registry,
            Arc::clone(&credentials),
            options,
            clock,
        ),
        reseller: ResellerClient::new(http, api, credentials),
        sim,
    }
}

impl Provider {
    fn fault(&self, assignments: &[&str]) {
        let control = self.sim.control();
        let mut faults = bellhop::simulator::Faults::default();
        for assignment in assignments {
            faults.apply(assignment).unwrap();
        }
        control.set_faults(faults);
    }
}

fn body(kind: NotificationType) -> RuleBody {
    let mut config = serde_json::Map::new();
    let operations: Vec<_> = kind.operations().iter().map(|op| op.as_str()).collect();
    if !operations.is_empty() {
        config.insert("operations".to_owned(), operations.into());
    }
    RuleBody {
        url: format!("https://hooks.example.net/{}/0123456789", kind.segment()),
        disabled: true,
        config,
    }
}

/// The single read of an entity over the given window.
fn read_of(key: &EntityKey, window: Window) -> Option<Read> {
    let ids: Vec<String> = key.ids().into_iter().map(str::to_owned).collect();
    Some(match (key.kind(), &ids[..]) {
        (NotificationType::Supplier, [supplier]) => Read::Supplier {
            supplier: supplier.clone(),
        },
        (NotificationType::Product, [supplier, product]) => Read::Product {
            supplier: supplier.clone(),
            product: product.clone(),
        },
        (NotificationType::Rate, [supplier, product, rate]) => Read::Rate {
            supplier: supplier.clone(),
            product: product.clone(),
            rate: rate.clone(),
        },
        (NotificationType::Availability, [supplier, product, rate]) => Read::Availability {
            supplier: supplier.clone(),
            product: product.clone(),
            rate: rate.clone(),
            window,
        },
        (NotificationType::PriceSchedule, [supplier, product, rate]) => Read::PriceSchedule {
            supplier: supplier.clone(),
            product: product.clone(),
            rate: rate.clone(),
            window,
        },
        (NotificationType::Booking, [booking]) => Read::Booking {
            booking: booking.clone(),
        },
        _ => return None,
    })
}

#[tokio::test]
async fn every_entity_is_read_as_the_truth_is() {
    let provider = start().await;
    let start = jiff::Timestamp::now()
        .to_zoned(jiff::tz::TimeZone::UTC)
        .date();
    let end = start.checked_add(jiff::Span::new().days(13)).unwrap();
    let window = Window { start, end };
    let days = Days::from_date(&start.to_string(), 14).unwrap();
    let mut kinds = std::collections::BTreeMap::<_, usize>::new();
    for (key, truth) in provider.sim.control().truths("", days) {
        let key: EntityKey = key.parse().unwrap();
        let Some(read) = read_of(&key, window) else {
            continue;
        };
        let Answer::One(document) = provider.reseller.read(&read).await.unwrap() else {
            panic!("{key}");
        };
        let data: Value = serde_json::from_str(document.data.get()).unwrap();
        assert_eq!(data, truth, "{key}");
        assert_eq!(document.version, truth["version"].as_i64(), "{key}");
        *kinds.entry(key.kind()).or_default() += 1;
    }
    assert_eq!(kinds.len(), 6, "{kinds:?}");
    let Answer::Many(suppliers) = provider.reseller.read(&Read::Suppliers).await.unwrap() else {
        panic!("a list");
    };
    assert_eq!(suppliers.len(), kinds[&NotificationType::Supplier]);
}

#[tokio::test]
async fn a_rule_lives_and_dies_under_every_switch() {
    for switches in [
        &[][..],
        &["post-status=200"],
        &["post-status=201", "post-body=false"],
        &["post-status=200", "post-body=false"],
        &["delete-status=200"],
        &["delete-status=202"],
        &["delete-status=404"],
        &["put-new-key=true"],
        &["put-merge=true"],
        &["epoch-times=true"],
        &["registry-errors=flat"],
        &["registry-errors=empty"],
        &["registry-errors=html"],
    ] {
        let provider = start().await;
        provider.fault(switches);
        let registry = &provider.registry;
        for kind in NotificationType::ALL {
            assert_eq!(registry.get(kind).await, Ok(None), "{switches:?}");
            let made = registry.create(kind, &body(kind)).await.unwrap();
            assert!(made.security_key.is_some() && made.disabled, "{switches:?}");
            assert_eq!(made.config, body(kind).config);
            let enabled = RuleBody {
                disabled: false,
                ..body(kind)
            };
            let put = registry.update(kind, &enabled).await.unwrap();
            let new_key = switches.contains(&"put-new-key=true");
            assert_eq!(put.security_key != made.security_key, new_key);
            let found = registry.get(kind).await.unwrap().unwrap();
            assert_eq!(found.security_key, put.security_key);
            assert!(!found.disabled);
            registry.delete(kind).await.unwrap();
            registry.delete(kind).await.unwrap();
            assert_eq!(
                registry.update(kind, &enabled).await,
                Err(RegistryError::NotFound),
                "{switches:?}"
            );
        }
    }
}

#[tokio::test]
async fn an_existing_rule_is_found_out_whatever_the_registry_says() {
    let kind = NotificationType::Booking;
    for (switch, expected) in [
        ("post-existing=conflict", Some(RegistryError::Exists)),
        ("post-existing=bad-request", Some(RegistryError::Exists)),
        ("post-existing=replace", None),
    ] {
        for shape in ["json", "flat", "empty", "html"] {
            let provider = start().await;
            provider.fault(&[switch, &format!("registry-errors={shape}")]);
            provider.registry.create(kind, &body(kind)).await.unwrap();
            let again = provider.registry.create(kind, &body(kind)).await;
            assert_eq!(again.err(), expected, "{switch} {shape}");
        }
    }
}

#[tokio::test]
async fn a_renamed_path_is_a_type_that_is_not_supported() {
    let kind = NotificationType::Availability;
    for shape in ["json", "flat", "empty", "html"] {
        let provider = start().await;
        provider.fault(&[
            "registry-paths=availability:availability",
            &format!("registry-errors={shape}"),
        ]);
        let error = provider.registry.create(kind, &body(kind)).await.err();
        let expected = RegistryError::UnsupportedType {
            kind,
            path: "/availabilities".to_owned(),
        };
        assert_eq!(error, Some(expected), "{shape}");
    }
}

#[tokio::test]
async fn failing_answers_of_the_reseller_api_are_told_apart() {
    let provider = start().await;
    for (switch, expected) in [
        ("html=1", "retry"),
        ("cut=1", "retry"),
        ("abort=1", "retry"),
        ("rate-limit=1", "retry"),
        ("huge=1", "refused"),
        ("unauthorized=true", "unauthorized"),
    ] {
        provider.fault(&[switch]);
        // The rate limit lets the first one through.
        let _ = provider.reseller.read(&Read::Suppliers).await;
        let found = match provider.reseller.read(&Read::Suppliers).await {
            Ok(_) => "an answer",
            Err(ReadError::Retry { .. }) => "retry",
            Err(ReadError::Refused { .. }) => "refused",
            Err(ReadError::Unauthorized { .. }) => "unauthorized",
            Err(ReadError::Gone { .. }) => "gone",
        };
        assert_eq!(found, expected, "{switch}");
    }
    for (switch, status) in [("gone=false", 404), ("gone=true", 410)] {
        provider.fault(&[switch]);
        let read = Read::Booking {
            booking: "no-such-booking".to_owned(),
        };
        let error = provider.reseller.read(&read).await.unwrap_err();
        assert!(matches!(error, ReadError::Gone { .. }), "{status}: {error}");
    }
}

#[tokio::test]
async fn an_authority_of_ones_own_is_trusted_when_it_is_given() {
    let folder = tempfile::tempdir().unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let names = ["127.0.0.1".to_owned()];
    let certificate = rcgen::CertificateParams::new(names).unwrap();
    let pem = certificate.self_signed(&key).unwrap().pem();
    let files = TlsPair {
        cert: folder.path().join("tls.crt"),
        key: folder.path().join("tls.key"),
    };
    std::fs::write(&files.cert, &pem).unwrap();
    std::fs::write(&files.key, key.serialize_pem()).unwrap();
    let config = || Config {
        tls: Some(files.clone()),
        ..Config::default()
    };
    let settings = ClientSettings {
        authorities: Some(pem),
        ..ClientSettings::default()
    };
    let trusting = start_with(config(), settings).await;
    let rule = trusting.registry.get(NotificationType::Rate).await.unwrap();
    assert!(rule.is_none());
    let other = start_with(config(), ClientSettings::default()).await;
    let refused = other.registry.get(NotificationType::Rate).await;
    assert!(refused.is_err());
}

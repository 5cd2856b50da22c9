//! The provider client against scripted servers on this machine.
//!
//! Oracles: the provider reference's text (paths, parameters, headers, statuses), written out here
//! by hand; what the server saw and wrote, byte for byte; the design's table of outcomes.

mod registry;
mod reseller;
mod server;
mod simulated;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bellhop::clock::{Clock, Ticks, UnixMillis};
use bellhop::metrics::Metrics;
use bellhop::provider::base::BaseUrl;
use bellhop::provider::client::{ClientSettings, HttpClient};
use bellhop::provider::credentials::CredentialSource;
use bellhop::secrets::{Credentials, Secret};

use server::Server;

const KEY: &str = "the-api-key-0001";
const SECRET: &str = "the-api-secret-0001";

/// Time that passes only when somebody sleeps, and then at once.
#[derive(Default)]
struct JumpingClock {
    ticks: AtomicU64,
    slept: Mutex<Vec<Duration>>,
}

impl JumpingClock {
    fn slept(&self) -> Vec<Duration> {
        self.slept.lock().unwrap().clone()
    }
}

#[async_trait::async_trait]
impl Clock for JumpingClock {
    fn now(&self) -> UnixMillis {
        // 1994-11-06T08:49:30Z: seven seconds before RFC 9110's example date.
        UnixMillis(784_111_770_000)
    }
    fn ticks(&self) -> Ticks {
        Ticks(self.ticks.load(Ordering::SeqCst))
    }
    async fn sleep(&self, duration: Duration) {
        self.slept.lock().unwrap().push(duration);
        let milliseconds = u64::try_from(duration.as_millis()).unwrap();
        self.ticks.fetch_add(milliseconds, Ordering::SeqCst);
        tokio::task::yield_now().await;
    }
}

/// What every client needs.
struct Parts {
    clock: Arc<JumpingClock>,
    metrics: Metrics,
    http: Arc<HttpClient>,
    base: BaseUrl,
    credentials: Arc<CredentialSource>,
}

fn credentials() -> Credentials {
    Credentials {
        api_key: Secret::new(KEY),
        api_secret: Secret::new(SECRET),
    }
}

fn parts(server: &Server, path: &str, settings: ClientSettings) -> Parts {
    let clock = Arc::new(JumpingClock::default());
    let metrics = Metrics::new();
    let base = BaseUrl::parse(&format!("http://{}{path}", server.address), false).unwrap();
    let time = Arc::clone(&clock) as Arc<dyn Clock>;
    Parts {
        http: HttpClient::new(settings, &[&base], Arc::clone(&time), &metrics).unwrap(),
        credentials: CredentialSource::memory(credentials(), time).unwrap(),
        clock,
        metrics,
        base,
    }
}

#[test]
fn a_client_for_https_finds_the_systems_certificates_or_says_what_is_missing() {
    let base = BaseUrl::parse("https://provider.invalid/v1.3", false).unwrap();
    let clock = Arc::new(JumpingClock::default());
    let result = HttpClient::new(ClientSettings::default(), &[&base], clock, &Metrics::new());
    if let Err(error) = result {
        assert!(error.to_string().contains("ca-certificates"), "{error}");
    }
}

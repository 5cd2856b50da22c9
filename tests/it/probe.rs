//! Tests of the probe of the public URL: the real prober, real sockets on loopback, TLS by rcgen,
//! and on the other end the real receiver or a hop that is broken on purpose.
//!
//! Oracles: what each hop was told to do, what it counted, and (for the receiver) the promise that
//! the store sees nothing and strangers get nothing signed.

mod broken;
pub mod hop;
mod rounds;
mod way;

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bellhop::api::condition::Reason;
use bellhop::metrics::Metrics;
use bellhop::registration::Resolver;
use bellhop::registration::probe::{Limits, Prober, Trust};
use bellhop::secrets::Secret;
use hop::Authority;

pub const HOST: &str = "hooks.test";
pub const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// Long enough for a loaded machine: what must not depend on time.
pub const PATIENT: Limits = Limits {
    resolve: Duration::from_secs(30),
    connect: Duration::from_secs(30),
    answer: Duration::from_secs(30),
};

/// For what never comes: a slow machine only makes it not come any less.
pub const IMPATIENT: Limits = Limits {
    resolve: Duration::from_millis(300),
    connect: Duration::from_millis(300),
    answer: Duration::from_millis(300),
};

/// DNS: the answers in a row, the last one for ever; counts the questions.
pub struct Dns {
    answers: Mutex<VecDeque<io::Result<Vec<IpAddr>>>>,
    pub asked: AtomicUsize,
}

impl Dns {
    pub fn says(answers: impl IntoIterator<Item = io::Result<Vec<IpAddr>>>) -> Arc<Self> {
        Arc::new(Self {
            answers: Mutex::new(answers.into_iter().collect()),
            asked: AtomicUsize::new(0),
        })
    }

    pub fn loopback() -> Arc<Self> {
        Self::says([Ok(vec![LOOPBACK])])
    }
}

#[async_trait]
impl Resolver for Dns {
    async fn resolve(&self, _: &str) -> io::Result<Vec<IpAddr>> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let next = {
            let mut answers = self.answers.lock().unwrap();
            match answers.len() {
                0 => None,
                1 => answers.front().map(|last| match last {
                    Ok(found) => Ok(found.clone()),
                    Err(error) => Err(io::Error::other(error.to_string())),
                }),
                _ => answers.pop_front(),
            }
        };
        match next {
            Some(next) => next,
            // Told nothing: DNS that does not answer.
            None => std::future::pending().await,
        }
    }
}

pub fn prober(dns: Arc<Dns>, authority: &Authority, limits: Limits, private: bool) -> Prober {
    let trust = Trust::Only(vec![authority.certificate()]);
    Prober::new(dns, trust, private, limits, &Metrics::new()).unwrap()
}

pub fn key() -> Secret {
    Secret::new("the probe's own key")
}

pub fn rule_url(port: u16) -> String {
    format!(
        "https://{HOST}:{port}/redeam/booking/{}",
        crate::receiver::rig::OWNER
    )
}

/// One probe to a port of this machine, under the name `hooks.test`.
pub async fn probe(authority: &Authority, port: u16, limits: Limits) -> Reason {
    let prober = prober(Dns::loopback(), authority, limits, true);
    prober.probe("uid", &rule_url(port), &key()).await.unwrap()
}

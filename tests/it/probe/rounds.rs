//! The probes of many subscriptions, in their time: a clock turned by hand, the real receiver.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bellhop::api::condition::Reason;
use bellhop::registration::probe::AT_ONCE;
use bellhop::registration::probe::rounds::{Rounds, Subject};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::hop::{Authority, Does, Hop, Then, hop, tls};
use super::{Dns, PATIENT, key, prober, rule_url};
use crate::receiver::rig::{Rig, Setup, rig};

struct Running {
    rounds: Arc<Rounds>,
    rig: Rig,
    dns: Arc<Dns>,
    changed: mpsc::UnboundedReceiver<String>,
    token: CancellationToken,
    task: JoinHandle<Result<(), String>>,
}

async fn running(authority: &Authority) -> Running {
    let rig = rig(Setup::default()).await;
    let dns = Dns::loopback();
    let prober = prober(dns.clone(), authority, PATIENT, true);
    let rounds = Arc::new(Rounds::new(prober, rig.clock.clone()));
    let (sender, changed) = mpsc::unbounded_channel();
    let token = CancellationToken::new();
    let tell = move |uid: &str| {
        let _ = sender.send(uid.to_owned());
    };
    let task = tokio::spawn(rounds.clone().run(tell, token.clone()));
    Running {
        rounds,
        rig,
        dns,
        changed,
        token,
        task,
    }
}

impl Running {
    fn asked(&self) -> usize {
        self.dns.asked.load(Ordering::SeqCst)
    }

    /// Lets a minute pass again and again until it is so.
    async fn until(&self, so: impl Fn(&Self) -> bool) {
        let waiting = async {
            while !so(self) {
                self.rig.clock.advance(Duration::from_mins(1));
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let waited = tokio::time::timeout(Duration::from_mins(1), waiting).await;
        waited.expect("it comes about within a minute of real time");
    }

    async fn next_change(&mut self) -> String {
        let next = tokio::time::timeout(Duration::from_mins(1), self.changed.recv());
        next.await.expect("a change").expect("the rounds go on")
    }
}

fn subject(port: u16) -> Subject {
    Subject {
        rule_url: rule_url(port),
        key: key(),
    }
}

async fn proxy(authority: &Authority, rig: &Rig) -> Hop {
    let then = Then::Forward {
        to: rig.address,
        path: None,
        without: &[],
    };
    hop(tls(authority.good(), then)).await
}

#[tokio::test]
async fn a_url_is_probed_again_and_again_and_changes_are_told() {
    let authority = Authority::new();
    let mut running = running(&authority).await;
    running.rig.keys.set_probe(vec![key()]);
    let hop = proxy(&authority, &running.rig).await;
    let shown = running.rounds.want("uid", subject(hop.port), None);
    assert_eq!(shown, Reason::ProbePending);
    let reachable = |now: &Running| now.rounds.shown("uid") == Some(Reason::Reachable);
    running.until(reachable).await;
    assert_eq!(running.next_change().await, "uid");
    assert_eq!(
        running.rounds.want("uid", subject(hop.port), None),
        Reason::Reachable
    );

    running.until(|now| now.asked() >= 4).await;
    assert!(
        running.changed.try_recv().is_err(),
        "the same again is no change"
    );

    running.rig.keys.set_probe(Vec::new());
    let lost = |now: &Running| now.rounds.shown("uid") == Some(Reason::ProbeKeyMissing);
    running.until(lost).await;
    assert_eq!(running.next_change().await, "uid");
    let metrics = running.rig.metrics.encode();
    let line = metrics
        .lines()
        .find(|line| line.contains("answer=\"no-key\""))
        .unwrap();
    let failures: u32 = line.rsplit(' ').next().unwrap().parse().unwrap();
    assert!(failures >= 2, "one failure is no news: {line}");

    running.rig.keys.set_probe(vec![key()]);
    running.until(reachable).await;
    running.token.cancel();
    assert_eq!(running.task.await.unwrap(), Ok(()));
}

/// No time passes here: what is done is done at once.
#[tokio::test]
async fn another_url_and_a_request_are_probed_at_once() {
    let authority = Authority::new();
    let mut running = running(&authority).await;
    let gone = hop(tls(
        authority.good(),
        super::hop::status("404 Not Found", ""),
    ))
    .await;
    let refused = hop(tls(
        authority.good(),
        super::hop::status("403 Forbidden", ""),
    ))
    .await;
    running.rounds.want("uid", subject(gone.port), None);
    running
        .until(|now| now.rounds.shown("uid") == Some(Reason::PathNotRouted))
        .await;
    running.next_change().await;

    let shown = running.rounds.want("uid", subject(refused.port), None);
    assert_eq!(
        shown,
        Reason::ProbePending,
        "nothing is known of another URL"
    );
    assert_eq!(running.next_change().await, "uid");
    assert_eq!(running.rounds.shown("uid"), Some(Reason::AccessRefused));

    let before = running.asked();
    running.rounds.again("uid");
    let asked = async {
        while running.asked() == before {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_mins(1), asked)
        .await
        .expect("asked at once");

    running.rounds.forget("uid");
    running.rounds.again("uid");
    assert_eq!(running.rounds.shown("uid"), None);
}

/// What the resource says of an earlier probe holds until the next one has ended.
#[tokio::test]
async fn a_restart_believes_what_status_says() {
    let authority = Authority::new();
    let running = running(&authority).await;
    let silent = hop(Does::Ignore).await;
    let status = Some(Reason::Reachable);
    let shown = running.rounds.want("uid", subject(silent.port), status);
    assert_eq!(shown, Reason::Reachable);
}

/// A hundred URLs that answer nothing hold sixteen probes, and not one subscription two.
#[tokio::test]
async fn probes_at_a_time_are_bounded() {
    let authority = Authority::new();
    let running = running(&authority).await;
    let silent = hop(Does::Ignore).await;
    for uid in 0..100 {
        running
            .rounds
            .want(&uid.to_string(), subject(silent.port), None);
    }
    running
        .until(|_| silent.connections.load(Ordering::SeqCst) >= AT_ONCE)
        .await;
    // Forgotten and wanted again while one is under way: that one is waited for.
    for uid in 0..100 {
        running.rounds.forget(&uid.to_string());
        running
            .rounds
            .want(&uid.to_string(), subject(silent.port), None);
    }
    for _ in 0..20 {
        running.rig.clock.advance(Duration::from_mins(1));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(silent.connections.load(Ordering::SeqCst), AT_ONCE);
}

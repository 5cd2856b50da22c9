//! What the demo tells: steps, a progress line on a terminal, plain lines otherwise, a summary.
//!
//! Owns: the words and numbers on stdout. Never here: a number that was not counted.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::consumer::Consumer;
use crate::simulator::Control;

/// Plain progress lines come this often, so that a log stays readable.
const PLAIN_EVERY: Duration = Duration::from_secs(1);

/// The account of one demo. Cheap to clone.
#[derive(Clone)]
pub struct Account(Arc<Inner>);

struct Inner {
    begun: Instant,
    terminal: bool,
    last: Mutex<Option<Instant>>,
}

impl Account {
    /// An account on stdout that begins now.
    pub fn new() -> Self {
        Self(Arc::new(Inner {
            begun: Instant::now(),
            terminal: std::io::stdout().is_terminal(),
            last: Mutex::new(None),
        }))
    }

    fn line(&self, text: &str) {
        self.clear();
        println!("{text}");
    }

    fn since(&self) -> String {
        format!("{:6.1} s", self.0.begun.elapsed().as_secs_f64())
    }

    /// Takes the progress line away.
    pub fn clear(&self) {
        if self.0.terminal {
            print!("\r\x1b[2K");
            let _ = std::io::stdout().flush();
        }
    }

    /// What is being shown, and where to look.
    pub fn title(&self, title: &str, rows: &[(&str, String)]) {
        self.line(title);
        for (name, value) in rows {
            self.line(&format!("  {name:<10}{value}"));
        }
    }

    /// A new chapter.
    pub fn step(&self, text: &str) {
        self.line(&format!("{}  {text}", self.since()));
    }

    /// Something that happened in it.
    pub fn detail(&self, text: &str) {
        self.line(&format!("{}    {text}", self.since()));
    }

    /// How far it is: overwritten on a terminal, once a second elsewhere.
    pub fn progress(&self, text: &str) {
        if self.0.terminal {
            print!("\r\x1b[2K{}    {text}", self.since());
            let _ = std::io::stdout().flush();
            return;
        }
        let mut last = self.0.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.is_none_or(|at| at.elapsed() >= PLAIN_EVERY) {
            *last = Some(Instant::now());
            drop(last);
            self.line(&format!("{}    {text}", self.since()));
        }
    }

    /// All is as it should be.
    pub fn equal(&self, entities: usize) {
        self.line(&format!(
            "equal: all {entities} entities at the consumer are what the provider has, and none ever went back"
        ));
    }

    /// The numbers, with what each counts.
    pub fn summary(&self, tally: &Tally, control: &Control, consumer: &Consumer, chaos: bool) {
        let provider = control.delivery_counts();
        let row = |name: &str, value: u64, what: &str| {
            self.line(&format!("  {name:<12}{value:>7}  {what}"));
        };
        self.line("summary");
        row("changed", tally.changed, "changes made at the provider");
        row(
            "received",
            tally.received(),
            "requests that reached the receiver",
        );
        row(
            "duplicate",
            tally.ledger("duplicate"),
            "known already, recognised by their signature",
        );
        row(
            "stale",
            tally.ledger("stale"),
            "older than a confirmed fetch, cost nothing",
        );
        row(
            "refused",
            tally.received().saturating_sub(tally.answered("accepted")),
            "answered other than 200",
        );
        row(
            "coalesced",
            consumer.coalesced(),
            "changes that one fetch brought together with a later one",
        );
        row(
            "fetched",
            tally.fetched(),
            "reads of the provider that were settled",
        );
        row("published", tally.published(), "events committed");
        row("consumed", consumer.events(), "events read from the feed");
        if chaos {
            row("crashes", tally.crashes, "kill -9 of the receiver");
            row(
                "lost",
                tally.never_delivered as u64,
                "entities the provider gave up on: named to the feed's refresh",
            );
            row(
                "retried",
                provider
                    .attempts
                    .saturating_sub(provider.made - provider.dropped),
                "further attempts of the provider",
            );
            self.line("  (a crash takes the counts of its last moments along)");
        }
        let latencies = consumer.latencies();
        let at = |quantile: f64| {
            let index = ((latencies.len() as f64 - 1.0) * quantile).round() as usize;
            latencies
                .get(index)
                .map_or(0.0, |took| took.as_secs_f64() * 1000.0)
        };
        self.line(&format!(
            "  from notification to consumer: p50 {:.0} ms, p99 {:.0} ms over {} changes seen",
            at(0.5),
            at(0.99),
            latencies.len()
        ));
    }
}

/// What was counted, over all lives of the receiver.
pub struct Tally {
    /// Changes made.
    pub changed: u64,
    /// Kills.
    pub crashes: u64,
    /// Entities whose newest notifications never got a 200.
    pub never_delivered: usize,
    /// What had been counted before the changes began.
    before: BTreeMap<String, f64>,
    /// What earlier lives of the receiver counted, and this one so far.
    counted: BTreeMap<String, f64>,
    delivered_before: u64,
    control: Control,
}

impl Tally {
    /// Counts from here on; `before` is what the metrics say now.
    pub fn new(control: &Control, before: BTreeMap<String, f64>) -> Self {
        Self {
            changed: 0,
            crashes: 0,
            never_delivered: 0,
            before,
            counted: BTreeMap::new(),
            delivered_before: control.delivery_counts().delivered,
            control: control.clone(),
        }
    }

    /// Adds what a life of the receiver counted, at its end.
    pub fn keep(&mut self, metrics: BTreeMap<String, f64>) {
        for (name, value) in metrics {
            let before = self.before.remove(&name).unwrap_or(0.0);
            *self.counted.entry(name).or_default() += (value - before).max(0.0);
        }
        // The next life counts from nothing.
        self.before.clear();
    }

    fn sum(&self, name: &str, label: &str) -> u64 {
        let prefix = format!("{name}{{");
        self.counted
            .iter()
            .filter(|(sample, _)| sample.starts_with(&prefix) && sample.contains(label))
            .map(|(_, value)| *value)
            .sum::<f64>() as u64
    }

    fn received(&self) -> u64 {
        self.sum("bellhop_receiver_requests_total", "")
    }

    fn answered(&self, class: &str) -> u64 {
        self.sum("bellhop_receiver_requests_total", &format!("\"{class}\""))
    }

    fn ledger(&self, what: &str) -> u64 {
        self.sum(
            "bellhop_receiver_notifications_total",
            &format!("\"{what}\""),
        )
    }

    fn fetched(&self) -> u64 {
        self.sum("bellhop_pipeline_fetches_total", "")
    }

    fn published(&self) -> u64 {
        self.sum("bellhop_pipeline_events_total", "")
    }

    /// The progress line.
    pub fn line(&self, consumer: &Consumer) -> String {
        let counts = self.control.delivery_counts();
        format!(
            "{} changed, {} notifications answered 200, {} on their way, {} events at the consumer",
            self.changed,
            counts.delivered - self.delivered_before,
            counts.pending,
            consumer.events()
        )
    }
}

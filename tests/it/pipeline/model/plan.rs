//! What a schedule's seed decides at its start.
//!
//! Owns: how often each kind of trouble comes. Half of the kinds are absent from a schedule, so
//! that each also shows without the others.
//!
//! Never here: anything that depends on what happens later.

use super::consumer::Mood;
use super::provider::Temper;
use super::sim::Sim;

/// What the seed decides at the start.
#[derive(Debug, Clone)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a toss of its own, none depends on another"
)]
pub struct Plan {
    pub workers: u64,
    pub changes: u64,
    pub busy: u64,
    pub temper: Temper,
    pub moods: Vec<Mood>,
    pub long_pauses: u32,
    pub lease_ms: u64,
    pub crash_writes: u64,
    pub crashes: u64,
    pub clock_steps: bool,
    /// One of the provider's machines is an hour ahead.
    pub future_machine: bool,
    /// In percent of the deliveries: up to ten minutes late.
    pub late: u64,
    pub resync: bool,
    pub guard: u32,
    pub retains: bool,
    /// More bookings are removed at once than the removal guard lets through.
    pub purge: bool,
    pub backlog: usize,
    pub calm_at: u64,
}

impl Plan {
    pub fn draw(sim: &Sim) -> Self {
        let some = |most: u64| {
            if sim.percent(50) {
                sim.below(most + 1)
            } else {
                0
            }
        };
        let clock_steps = sim.percent(40);
        let mood = || Mood {
            not_well: some(30),
            fails: some(20),
            refuses: some(4),
            hangs: some(5),
            takes_silently: some(20),
            chokes: sim.percent(25),
        };
        Self {
            workers: 1 + sim.below(4),
            changes: 4 + sim.below(14),
            busy: some(60),
            temper: Temper {
                fails: some(30),
                stale: some(90),
                denies: some(25),
                empties: some(60),
                cache_ms: some(360_000),
                two_caches: sim.percent(30),
                fine_retrieved: sim.percent(50),
                slow: some(40),
                endless: some(40),
                skew_ms: sim.below(240_000) as i64 - 120_000,
            },
            moods: vec![mood(), mood()],
            long_pauses: if sim.percent(30) { 10 } else { 0 },
            lease_ms: if sim.percent(30) { 12_000 } else { 300_000 },
            crash_writes: sim.below(4),
            crashes: sim.below(3),
            clock_steps,
            future_machine: !clock_steps && sim.percent(40),
            late: some(30),
            resync: sim.percent(20),
            guard: if sim.percent(70) { 100 } else { 10 },
            retains: sim.percent(30),
            purge: sim.percent(3),
            backlog: if sim.percent(10) { 6 } else { 200_000 },
            calm_at: 20_000 + sim.below(400_000),
        }
    }

    /// Two caches tell their answers apart only by milliseconds.
    pub fn settled(mut self) -> Self {
        self.temper.fine_retrieved |= self.temper.two_caches;
        self
    }
}

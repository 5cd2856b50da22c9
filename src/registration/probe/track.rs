//! What is believed of a URL after several probes, and when the next one is due.
//!
//! Owns: how often one must fail before a URL that was reachable no longer is, and the delays.
//! Pure: randomness is given. Never here: a delay without jitter, or one that never ends.

use std::time::Duration;

use crate::api::Reason;

/// Between probes of a URL that is reachable.
const STEADY: Duration = Duration::from_mins(15);

/// After the first failure; it doubles from there.
const SOON: Duration = Duration::from_secs(10);

/// At most this long after a failure.
const LATE: Duration = Duration::from_mins(5);

/// After a start, what was unreachable is probed within this time: thousands of them would ask the
/// cluster's DNS all at once.
const AFTER_START: Duration = Duration::from_secs(30);

/// Failures in a row that make a reachable URL unreachable: one may be a packet, two are a hop.
const FAILURES: u32 = 2;

/// What is known of one URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Track {
    shown: Reason,
    failures: u32,
}

impl Default for Track {
    fn default() -> Self {
        Self {
            shown: Reason::ProbePending,
            failures: 0,
        }
    }
}

impl Track {
    /// Goes on from what status says after a restart. What it says of a probe is kept until the
    /// next one has ended.
    pub fn resumed(shown: Option<Reason>) -> Self {
        let probed = shown.filter(|reason| {
            let of = reason.conditions().iter();
            of.copied()
                .any(|(kind, _)| kind == crate::api::ConditionType::Reachable)
                && *reason != Reason::ProbeOff
        });
        Self {
            shown: probed.unwrap_or(Reason::ProbePending),
            failures: 0,
        }
    }

    /// What the condition Reachable says.
    pub const fn shown(&self) -> Reason {
        self.shown
    }

    /// A probe has ended.
    pub fn record(&mut self, found: Reason) {
        if found == Reason::Reachable {
            self.failures = 0;
            self.shown = found;
            return;
        }
        self.failures = self.failures.saturating_add(1);
        if self.shown != Reason::Reachable || self.failures >= FAILURES {
            self.shown = found;
        }
    }

    /// How long to wait before the first probe since the process began: at once for what nobody has
    /// probed yet, spread over half a minute for what was not reachable, and over the interval for
    /// what was.
    pub fn first(&self, random: &mut fastrand::Rng) -> Duration {
        match self.shown {
            Reason::Reachable => STEADY.mul_f64(random.f64()),
            Reason::ProbePending => Duration::from_secs(1).mul_f64(random.f64()),
            _ => AFTER_START.mul_f64(random.f64()),
        }
    }

    /// How long to wait before the next probe, counted from the end of the last: a fifth more or
    /// less than the interval.
    pub fn next(&self, random: &mut fastrand::Rng) -> Duration {
        let interval = match self.failures {
            0 => STEADY,
            failures => LATE.min(SOON * 2_u32.saturating_pow((failures - 1).min(16))),
        };
        interval.mul_f64(0.8 + 0.4 * random.f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_failure_does_not_make_a_reachable_url_unreachable() {
        use Reason::{ConnectionTimedOut, PathNotRouted, ProbePending, Reachable};
        let mut track = Track::default();
        assert_eq!(track.shown(), ProbePending);
        for (found, shown) in [
            (PathNotRouted, PathNotRouted),
            (Reachable, Reachable),
            (ConnectionTimedOut, Reachable),
            (Reachable, Reachable),
            (ConnectionTimedOut, Reachable),
            (PathNotRouted, PathNotRouted),
            (ConnectionTimedOut, ConnectionTimedOut),
            (Reachable, Reachable),
        ] {
            track.record(found);
            assert_eq!(track.shown(), shown, "{found}");
        }
    }

    #[test]
    fn delays_grow_and_are_spread() {
        let mut random = fastrand::Rng::with_seed(7);
        let mut track = Track::default();
        track.record(Reason::Reachable);
        let steady: Vec<u64> = (0..200)
            .map(|_| track.next(&mut random).as_secs())
            .collect();
        assert!(
            steady.iter().all(|seconds| (720..=1080).contains(seconds)),
            "{steady:?}"
        );
        assert!(steady.iter().max().unwrap() - steady.iter().min().unwrap() > 300);
        for most in [12, 24, 48, 96, 192, 360, 360] {
            track.record(Reason::TlsFailed);
            let seconds = track.next(&mut random).as_secs_f64();
            assert!(
                (f64::from(most) / 1.5..=f64::from(most)).contains(&seconds),
                "{seconds}"
            );
        }
        for _ in 0..100 {
            track.record(Reason::TlsFailed);
        }
        assert!(track.next(&mut random) <= Duration::from_mins(6));
    }

    #[test]
    fn a_restart_keeps_what_a_probe_found_and_spreads_the_next_ones() {
        use Reason::{PathNotRouted, ProbeOff, ProbePending, Reachable, RulesInPlace};
        for (status, shown) in [
            (Some(Reachable), Reachable),
            (Some(PathNotRouted), PathNotRouted),
            (Some(ProbeOff), ProbePending),
            (Some(RulesInPlace), ProbePending),
            (None, ProbePending),
        ] {
            assert_eq!(Track::resumed(status).shown(), shown);
        }
        let mut random = fastrand::Rng::with_seed(7);
        let track = Track::resumed(Some(Reachable));
        let first: Vec<u64> = (0..200)
            .map(|_| track.first(&mut random).as_secs())
            .collect();
        assert!(*first.iter().min().unwrap() < 60 && *first.iter().max().unwrap() > 800);
        assert!(first.iter().all(|seconds| *seconds <= 900));
        let broken = Track::resumed(Some(PathNotRouted));
        let first: Vec<u64> = (0..200)
            .map(|_| broken.first(&mut random).as_secs())
            .collect();
        assert!(*first.iter().min().unwrap() < 3 && *first.iter().max().unwrap() > 25);
        assert!(first.iter().all(|seconds| *seconds <= 30));
        assert!(Track::default().first(&mut random) <= Duration::from_secs(1));
    }
}

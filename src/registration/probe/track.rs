//! What is believed of a URL after several probes, and when the next one is due.
//!
//! Owns: how often in a row something else must be found before it is believed, and the delays.
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

/// So many failures in a row come to the longest delay. What was not reachable before a start has them.
const LASTING: u32 = 6;

/// Failures in a row that make a reachable URL unreachable: one may be a packet, two are a hop. Another
/// trouble must be found twice as well: what changes from probe to probe, such as how a lookup fails,
/// is said as it was at first.
const TWICE: u32 = 2;

/// So many findings in a row that are not what is shown, and the newest is: they may change from
/// probe to probe, but what is shown is over.
const OUTDATED: u32 = 4;

/// What is known of one URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Track {
    shown: Reason,
    failures: u32,
    /// What was found last, when it is not what is shown.
    other: Option<Reason>,
    /// How often in a row anything but what is shown was found.
    others: u32,
}

impl Default for Track {
    fn default() -> Self {
        Self {
            shown: Reason::ProbePending,
            failures: 0,
            other: None,
            others: 0,
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
        let shown = probed.unwrap_or(Reason::ProbePending);
        let failing = !matches!(shown, Reason::ProbePending | Reason::Reachable);
        Self {
            shown,
            failures: if failing { LASTING } else { 0 },
            ..Self::default()
        }
    }

    /// What the condition Reachable says.
    pub const fn shown(&self) -> Reason {
        self.shown
    }

    /// A probe has ended that somebody asked for: who does it again after each try must see what came
    /// of it, and soon what comes after.
    pub fn believe(&mut self, found: Reason) {
        *self = Self {
            shown: found,
            failures: u32::from(found != Reason::Reachable),
            ..Self::default()
        };
    }

    /// A probe has ended.
    pub fn record(&mut self, found: Reason) {
        let well = found == Reason::Reachable;
        self.failures = if well {
            0
        } else {
            self.failures.saturating_add(1)
        };
        if found == self.shown {
            (self.other, self.others) = (None, 0);
            return;
        }
        self.others += 1;
        // A URL that was reachable and fails twice is not, however it fails.
        let twice =
            self.other == Some(found) || (self.shown == Reason::Reachable && self.others >= TWICE);
        // Good news is believed at once, and so is the first that is known at all.
        let at_once = well || self.shown == Reason::ProbePending;
        if at_once || twice || self.others >= OUTDATED {
            self.shown = found;
            (self.other, self.others) = (None, 0);
        } else {
            self.other = Some(found);
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
    fn what_is_found_once_is_not_believed_unless_it_is_good() {
        use Reason::{ConnectionTimedOut, PathNotRouted, ProbePending, Reachable, TlsFailed};
        let mut track = Track::default();
        assert_eq!(track.shown(), ProbePending);
        for (found, shown) in [
            (PathNotRouted, PathNotRouted),
            (Reachable, Reachable),
            (ConnectionTimedOut, Reachable),
            (Reachable, Reachable),
            (ConnectionTimedOut, Reachable),
            (PathNotRouted, PathNotRouted),
            // Now this, now that: it stays as it was said.
            (ConnectionTimedOut, PathNotRouted),
            (PathNotRouted, PathNotRouted),
            (ConnectionTimedOut, PathNotRouted),
            (ConnectionTimedOut, ConnectionTimedOut),
            (Reachable, Reachable),
            (PathNotRouted, Reachable),
            (PathNotRouted, PathNotRouted),
            // What is shown is over, although nothing else lasts.
            (ConnectionTimedOut, PathNotRouted),
            (TlsFailed, PathNotRouted),
            (ConnectionTimedOut, PathNotRouted),
            (TlsFailed, TlsFailed),
        ] {
            track.record(found);
            assert_eq!(track.shown(), shown, "{found}");
        }
    }

    #[test]
    fn who_asks_is_told_what_is_found() {
        use Reason::{PathNotRouted, Reachable, TlsFailed};
        let mut random = fastrand::Rng::with_seed(7);
        let mut track = Track::resumed(Some(Reachable));
        for found in [TlsFailed, PathNotRouted] {
            track.believe(found);
            assert_eq!(track.shown(), found);
            assert!(track.next(&mut random) <= SOON.mul_f64(1.2));
        }
        track.record(TlsFailed);
        assert_eq!(track.shown(), PathNotRouted);
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
        // A start is no reason to ask as often as after the first failure.
        let mut broken = Track::resumed(Some(PathNotRouted));
        broken.record(PathNotRouted);
        assert!(broken.next(&mut random) >= Duration::from_mins(4));
        assert!(Track::default().first(&mut random) <= Duration::from_secs(1));
    }
}

//! How old an answer may be, and how long to wait before it is asked for again.
//!
//! Owns: the signs of an answer from a cache. A lower `version` than the published one, a
//! `retrieved` before the published one or before the notification, an availability that is
//! suddenly empty, and, where the answer says nothing about its age, a read so soon after the
//! notification that a cache may still have what was before it.
//!
//! Never here: an answer that is asked for again without end; each wait has a last one.

use std::time::Duration;

use super::{Judge, SECOND, live};
use crate::clock::Ticks;
use crate::pipeline::memo::{Cached, Lower, Memo};
use crate::planted::{Bug, planted};
use crate::provider::Document;

/// A lower version is believed after so many reads ...
const LOWER_READS: u32 = 3;
/// ... over so long agree.
const LOWER_SPAN: Duration = Duration::from_mins(10);
/// An answer from a cache is settled as unconfirmed after this long.
const CACHED_SPAN: Duration = Duration::from_mins(15);
/// An answer from a cache, or with a lower version, is asked for again after as long as that has
/// been going on, so the wait doubles; further notifications, which bring reads forward, do not
/// lengthen it. The first wait ...
const CACHED_FIRST: Duration = Duration::from_secs(5);
/// ... and the longest, unless the answer itself says that it is kept for longer.
const CACHED_LONGEST: Duration = Duration::from_mins(5);
/// An empty answer is believed when it is still empty after this long.
const EMPTY_AGAIN: Duration = Duration::from_secs(5);
/// What carries no `retrieved` is believed for good when it was read this long after the newest
/// notification: caches before the catalogue, if there are any, are not documented (provider
/// reference §6.9). One that is older shows what was before the change until the next resync.
const SETTLED: Duration = Duration::from_secs(5);
/// Less is not worth a wait of its own.
const SHORTEST: Duration = Duration::from_millis(100);

/// What an answer's age means.
pub(super) enum Age {
    /// Nothing speaks against it.
    Fine,
    /// Ask again after this long.
    Wait(Duration),
    /// It was asked for again and again and is as good as it gets.
    WaitedLongEnough,
}

impl Judge<'_> {
    /// How long to wait when the version is lower than the published one and not yet believed.
    pub(super) fn lower_version(&self, memo: &mut Memo, document: &Document) -> Option<Duration> {
        let published = live(self.claim).and(memo.version);
        let (Some(version), Some(published)) = (document.version, published) else {
            memo.lower = None;
            return None;
        };
        if version >= published || planted(Bug::VersionIgnored) {
            memo.lower = None;
            return None;
        }
        let now = self.context.now;
        let before = memo
            .lower
            .take()
            .filter(|lower| lower.version == version && lower.first.run == now.run);
        let lower = Lower {
            version,
            first: before.as_ref().map_or(now, |lower| lower.first),
            reads: before
                .as_ref()
                .map_or(1, |lower| lower.reads.saturating_add(1)),
        };
        if lower.reads >= LOWER_READS && self.before_this_read(lower.first) >= LOWER_SPAN {
            return None;
        }
        let elapsed = self.since(lower.first);
        let wait = elapsed.clamp(CACHED_FIRST, CACHED_LONGEST);
        memo.lower = Some(lower);
        // The last read should fall on the end of the span, not long after it.
        Some(wait.min(LOWER_SPAN.saturating_sub(elapsed).max(CACHED_FIRST)))
    }

    /// An availability that the provider retrieved earlier than the one that is published.
    pub(super) fn older_than_published(&self, memo: &mut Memo, document: &Document) -> Age {
        match (&document.retrieved, live(self.claim).and(memo.retrieved)) {
            (Some((_, retrieved)), Some(published)) if *retrieved < published => {
                self.cached(memo, document, false)
            }
            _ => Age::Fine,
        }
    }

    /// An availability that the provider may have retrieved before the change it told us of.
    ///
    /// `retrieved` and the timestamp are both the provider's time, so our own clock does not
    /// matter. Timestamps are whole seconds: within the same second the order cannot be known, and
    /// one more look, soon, is the price of not losing an update.
    pub(super) fn before_its_mark(&self, memo: &mut Memo, document: &Document) -> Age {
        match (&document.retrieved, self.claim.notified) {
            (Some((_, retrieved)), Some(notified))
                if *retrieved < notified.after(SECOND) && !planted(Bug::RetrievedIgnored) =>
            {
                self.cached(memo, document, *retrieved >= notified)
            }
            _ => Age::Fine,
        }
    }

    fn cached(&self, memo: &mut Memo, document: &Document, soon: bool) -> Age {
        let now = self.context.now;
        let notified = self.claim.notified;
        let before = memo
            .cached
            .take()
            .filter(|cached| cached.notified == notified && cached.first.run == now.run);
        let cached = Cached {
            notified,
            first: before.map_or(now, |cached| cached.first),
        };
        if self.before_this_read(cached.first) >= CACHED_SPAN {
            return Age::WaitedLongEnough;
        }
        let elapsed = self.since(cached.first);
        let mut wait = elapsed.clamp(CACHED_FIRST, CACHED_LONGEST);
        if let Some(expires) = document.expires
            && !(soon && elapsed < CACHED_FIRST)
        {
            wait = wait.max(expires.since(self.context.fetched));
        }
        memo.cached = Some(cached);
        Age::Wait(wait.min(CACHED_SPAN.saturating_sub(elapsed).max(CACHED_FIRST)))
    }

    /// How long to wait when it is empty for the first time.
    pub(super) fn suddenly_empty(
        &self,
        memo: &mut Memo,
        document: &Document,
        same: bool,
    ) -> Option<Duration> {
        if !document.empty || same || planted(Bug::EmptyBelieved) {
            memo.empty = None;
            return None;
        }
        let now = self.context.now;
        let first = memo
            .empty
            .filter(|first| first.run == now.run)
            .unwrap_or(now);
        if self.before_this_read(first) >= EMPTY_AGAIN {
            memo.empty = None;
            return None;
        }
        memo.empty = Some(first);
        Some(EMPTY_AGAIN.saturating_sub(self.since(first)).max(SHORTEST))
    }

    /// How long until an answer that says nothing about its age is read for the last time; `None`
    /// when it was read late enough, or when no notification says that there was a change.
    pub(super) fn soon_after_its_notification(&self) -> Option<Duration> {
        let settled = self.claim.noticed?.after(SETTLED);
        (self.context.started < settled && !planted(Bug::SecondLookSkipped))
            .then(|| settled.since(Ticks(self.context.now.ticks)).max(SHORTEST))
    }
}

//! Rotation of keys on request: each rule is made anew, one type at a time.
//!
//! Owns: the note of what is to be replaced, written before the first delete, so that a rotation
//! that is broken off goes on and does nothing twice; and the measured gap. The provider offers no
//! call for a new key: between the delete and the enabled new rule nothing is notified, which the
//! resync of that type finds (the executor owes one whenever it enables a rule). The gap is counted
//! by the wall clock from a time that is noted before the delete: a crash in between makes it
//! longer, never shorter.
//!
//! Never here: a delete of a rule that has a new key already, or of another owner's.

use std::collections::BTreeMap;
use std::time::Duration;

use super::owned::{Content, Rotation};
use super::register::Pass;
use super::session::{Line, ROTATE_KEYS};
use crate::api::NotificationType;
use crate::provider::Registry as _;
use crate::registration::{DesiredRules, Mode, Report};

/// How long each type had no live rule. Types that were not live have no gap.
pub type Gaps = BTreeMap<NotificationType, Duration>;

/// What became of a rotation.
pub enum Rotated {
    /// Nobody asked, or it was acknowledged before.
    NotAsked,
    /// Through.
    Done {
        /// The value to acknowledge.
        asked: String,
        /// Per type that was live.
        gaps: Gaps,
    },
    /// The provider stood in the way: what it looks like there.
    Stopped(Report),
}

impl Pass<'_> {
    /// Rotates, if that was asked for. A type that loses its live rule here is taken out of
    /// `desired.hold`: it comes back at once.
    ///
    /// # Errors
    /// When the API server does not take a note.
    pub(super) async fn rotate(
        &self,
        line: &Line,
        desired: &mut DesiredRules,
        content: &Content,
    ) -> Result<Rotated, kube::Error> {
        let status = self.subscription.status.as_ref();
        let acknowledged = status.and_then(|status| status.acknowledged.as_ref());
        let before = acknowledged.and_then(|known| known.rotate_keys.clone());
        let asked = self.annotation(ROTATE_KEYS);
        let Some(asked) = asked.filter(|asked| Some(asked) != before.as_ref()) else {
            // Acknowledged, so the note has done its work.
            self.vault
                .change(|content| content.rotation.take().is_some())
                .await?;
            return Ok(Rotated::NotAsked);
        };
        if desired.mode == Mode::Observe {
            return Ok(Rotated::NotAsked);
        }
        let going_on = content.rotation.clone();
        let rotation = match going_on.filter(|rotation| rotation.asked == asked) {
            Some(rotation) => rotation,
            None => self.note_rotation(asked.clone()).await?,
        };
        for (kind, replaces) in &rotation.replaces {
            if desired.rules.contains_key(kind)
                && let Some(report) = self.rotate_one(line, desired, *kind, replaces).await?
            {
                return Ok(Rotated::Stopped(report));
            }
        }
        let noted = self.vault.content().await.rotation;
        let gaps = noted.map(|noted| noted.gaps).unwrap_or_default();
        let gaps = gaps.into_iter();
        Ok(Rotated::Done {
            asked,
            gaps: gaps
                .map(|(kind, gap)| (kind, Duration::from_millis(gap)))
                .collect(),
        })
    }

    async fn note_rotation(&self, asked: String) -> Result<Rotation, kube::Error> {
        let mut noted = Rotation {
            asked,
            ..Rotation::default()
        };
        self.vault
            .change(|content| {
                noted.replaces = content
                    .keys
                    .iter()
                    .map(|(kind, keys)| (*kind, keys.current.fingerprint().to_string()))
                    .collect();
                content.rotation = Some(noted.clone());
                true
            })
            .await?;
        Ok(noted)
    }

    /// One type: the rule with the old key goes, and comes back with a new one at once. `Some`: it
    /// did not get that far, and what it looks like.
    async fn rotate_one(
        &self,
        line: &Line,
        desired: &mut DesiredRules,
        kind: NotificationType,
        replaces: &str,
    ) -> Result<Option<Report>, kube::Error> {
        let Ok(rule) = line.registry.get(kind).await else {
            // The executor meets the same and words it.
            return Ok(Some(line.executor.reconcile(desired).await));
        };
        // No rule: deleted by a pass that ended there.
        if let Some(rule) = &rule {
            if !desired.owner.owns(&rule.url) {
                return Ok(None);
            }
            let key = rule.security_key.as_ref();
            let key = key.map(|key| key.fingerprint().to_string());
            if key.is_none_or(|key| key == replaces) {
                if !rule.disabled {
                    self.note_gap_begins(kind).await?;
                    desired.hold.remove(&kind);
                }
                if line.registry.delete(kind).await.is_err() {
                    return Ok(Some(line.executor.reconcile(desired).await));
                }
            }
        }
        let report = line.executor.reconcile_types(desired, &[kind]).await;
        if !report.is_as_far_as_it_may() {
            return Ok(Some(line.executor.reconcile(desired).await));
        }
        self.note_gap_ends(kind).await;
        Ok(None)
    }

    async fn note_gap_begins(&self, kind: NotificationType) -> Result<(), kube::Error> {
        let now = self.context.clock.now();
        let begins = |content: &mut Content| {
            let Some(rotation) = &mut content.rotation else {
                return false;
            };
            // The first time counts: a delete whose answer was lost may have worked.
            let new = !rotation.begun.contains_key(&kind);
            rotation.begun.entry(kind).or_insert(now);
            new
        };
        self.vault.change(begins).await
    }

    /// In memory: it is written with what the pass writes next.
    async fn note_gap_ends(&self, kind: NotificationType) {
        let now = self.context.clock.now();
        let mut ended = None;
        self.vault
            .note(|content| {
                let Some(rotation) = &mut content.rotation else {
                    return false;
                };
                let Some(begun) = rotation.begun.get(&kind) else {
                    return false;
                };
                if rotation.gaps.contains_key(&kind) {
                    return false;
                }
                let gap = now.since(*begun);
                let whole = u64::try_from(gap.as_millis()).unwrap_or(u64::MAX);
                rotation.gaps.insert(kind, whole);
                ended = Some(gap);
                true
            })
            .await;
        if let Some(gap) = ended {
            self.context.metrics.rotated(gap);
            tracing::info!(%kind, ?gap, "the rule was made anew with another key; its type is compared in full");
        }
    }
}

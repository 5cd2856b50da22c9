//! What a process says about itself: `/status`.
//!
//! Owns: the shape of `/status` (JSON, camelCase). Everything in it can be rebuilt: it is a cache.
//! Never here: a secret, an identifier of an entity, a decision.

use std::sync::Arc;

use serde_json::{Value, json};

use super::conditions::{Facts, conditions};
use super::dataplane::DataPlane;
use crate::admin;
use crate::clock::UnixMillis;
use crate::publish::SinkStatus;
use crate::registration::Report;
use crate::state::{State, Stats};

/// The closure behind `/status`.
pub fn of(plane: &DataPlane) -> admin::Status {
    let subscription = plane.settings.subscription.clone();
    let (state, receiver, pipeline) = (
        plane.state.clone(),
        plane.receiver.clone(),
        plane.pipeline.clone(),
    );
    let (sinks, registration) = (plane.sinks.clone(), plane.registration.clone());
    let (manifests, registers) = (plane.manifests.clone(), plane.registers);
    Arc::new(move || {
        let sinks: Vec<SinkStatus> = sinks.iter().map(|sink| sink.borrow().clone()).collect();
        let counted = state.stats();
        let facts = Facts {
            registers,
            report: registration
                .get()
                .and_then(crate::registration::Handle::status)
                .map(|status| status.report.clone()),
            stats: counted,
            receiver: receiver.status(),
            pipeline: pipeline.status(),
            sinks,
        };
        json!({
            "namespace": subscription.namespace,
            "name": subscription.name,
            "environment": subscription.environment,
            "conditions": conditions(&facts),
            "registered": facts.report.as_ref().map(Report::registered),
            "rules": facts.report.as_ref().map(|report| &report.rules),
            "backlog": backlog(facts.stats.marks),
            "lastNotificationTime": facts.stats.last_notification.map(UnixMillis::rfc3339),
            "receiver": facts.receiver,
            "pipeline": facts.pipeline,
            "sinks": facts.sinks,
            "store": store(&facts.stats),
            "manifest": manifests.get().map(|shown| shown.borrow().clone()),
        })
    })
}

/// As in the resource's status: a coarse number that does not change all the time.
pub fn backlog(marks: u64) -> &'static str {
    match marks {
        0 => "0",
        1..100 => "1+",
        100..10_000 => "100+",
        _ => "10k+",
    }
}

fn store(stats: &Stats) -> Value {
    json!({
        "marks": stats.marks,
        "resyncMarks": stats.resync_marks,
        "claims": stats.claims,
        "oldestMark": stats.oldest_mark.map(UnixMillis::rfc3339),
        "liveEntities": stats.live_entities,
        "head": stats.head,
        "journal": stats.journal,
        "deadLetters": {
            "notification": stats.dead_letters[0],
            "fetch": stats.dead_letters[1],
            "sink": stats.dead_letters[2],
        },
        "bytes": stats.bytes,
        "bytesLimit": stats.bytes_limit,
    })
}

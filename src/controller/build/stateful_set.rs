//! The StatefulSet: one pod for the embedded store. Old and new never hold the store together: a
//! StatefulSet makes a pod only when the one of the same name is gone.
//!
//! Never here: a volume claim template, which could not grow.

use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use super::{Blueprint, Built, Kind, pod};

pub(super) fn stateful_set(plan: &Blueprint<'_>) -> Built {
    let template = pod::template(plan);
    let mut metadata = plan.owned(plan.name());
    // Here too, where the watch of metadata shows it.
    let hash = template.metadata.as_ref().and_then(|metadata| {
        let annotations = metadata.annotations.as_ref()?;
        annotations.get_key_value(pod::TEMPLATE_HASH)
    });
    let hash = hash.map(|(name, value)| (name.clone(), value.clone()));
    metadata.annotations = Some(hash.into_iter().collect());
    let set = StatefulSet {
        metadata,
        spec: Some(StatefulSetSpec {
            replicas: Some(plan.subscription.spec.receiver.replicas),
            selector: LabelSelector {
                match_labels: Some(plan.selector()),
                ..LabelSelector::default()
            },
            service_name: Some(plan.name().to_owned()),
            // A pod that never became ready must not keep its better successor waiting.
            pod_management_policy: Some("Parallel".to_owned()),
            // Enough to go back to; each is a whole template.
            revision_history_limit: Some(3),
            template,
            ..StatefulSetSpec::default()
        }),
        ..StatefulSet::default()
    };
    Built::new(Kind::StatefulSet, &set)
}

//! The volume of the store: a claim of its own, since those of a StatefulSet's template cannot grow.
//!
//! Never here: an owner while the spec says that the volume outlives the subscription.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    PersistentVolumeClaim, PersistentVolumeClaimSpec, VolumeResourceRequirements,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::{Blueprint, Built, Kind};
use crate::api::v1alpha1::OnDelete;

pub(super) fn name(plan: &Blueprint<'_>) -> String {
    plan.named("data")
}

/// Where Argo CD tracks by the label `app.kubernetes.io/instance` and an Application has the name of
/// the subscription, it takes the claim for one of its own: one that is not in Git and may go.
const ARGO_CD: [(&str, &str); 2] = [
    (
        "argocd.argoproj.io/sync-options",
        "Prune=false,Delete=false",
    ),
    ("argocd.argoproj.io/compare-options", "IgnoreExtraneous"),
];

pub(super) fn claim(plan: &Blueprint<'_>) -> Built {
    let embedded = plan.subscription.spec.state.embedded();
    let metadata = match embedded.on_delete {
        OnDelete::Retain => kept(plan.unowned(&name(plan))),
        OnDelete::Delete => plan.owned(&name(plan)),
    };
    let size = Quantity(embedded.size.as_str().to_owned());
    let class = embedded.storage_class_name;
    let claim = PersistentVolumeClaim {
        metadata,
        spec: Some(PersistentVolumeClaimSpec {
            // SQLite must not have two writers, wherever they run.
            access_modes: Some(vec!["ReadWriteOnce".to_owned()]),
            resources: Some(VolumeResourceRequirements {
                requests: Some(BTreeMap::from([("storage".to_owned(), size)])),
                ..VolumeResourceRequirements::default()
            }),
            storage_class_name: (!class.is_empty()).then_some(class),
            ..PersistentVolumeClaimSpec::default()
        }),
        ..PersistentVolumeClaim::default()
    };
    Built::new(Kind::PersistentVolumeClaim, &claim)
}

fn kept(metadata: ObjectMeta) -> ObjectMeta {
    let notes = ARGO_CD.map(|(name, value)| (name.to_owned(), value.to_owned()));
    ObjectMeta {
        annotations: Some(BTreeMap::from(notes)),
        ..metadata
    }
}

//! The pod of a receiver.
//!
//! Owns: its container, what is mounted into it, who may do what in it (the restricted Pod Security
//! Standard, a root file system that cannot be written), when it counts as started, alive and ready,
//! and how long its end may take.
//!
//! Never here: a token of Kubernetes; a Secret in the environment or below a `subPath`, where a
//! change would not arrive.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{
    Affinity, Capabilities, ConfigMapVolumeSource, Container, ContainerPort, HTTPGetAction,
    Lifecycle, LifecycleHandler, LocalObjectReference, PersistentVolumeClaimVolumeSource,
    PodSecurityContext, PodSpec, PodTemplateSpec, Probe, ResourceRequirements, SeccompProfile,
    SecretVolumeSource, SecurityContext, SleepAction, Toleration, TopologySpreadConstraint, Volume,
    VolumeMount,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::settings_map::{DATA, DRAIN, FEED, FILE, KEYS, SETTINGS, SINKS, TLS};
use super::{Blueprint, claim, digest, feed_token, settings_map};
use crate::controller::owned::secret_name;

/// The provider's notifications.
pub(super) const PUBLIC_PORT: i32 = 8080;

/// `/livez`, `/readyz`, `/metrics`, `/status`.
pub const ADMIN_PORT: i32 = 8081;

/// The feed.
pub(super) const FEED_PORT: i32 = 8082;

/// The annotation of a pod with a digest of the template that it was made from.
pub const TEMPLATE_HASH: &str = "bellhop.dev/template";

/// Nobody in particular, on this machine and on the node.
const NOBODY: i64 = 65532;

/// How long a pod that is to end goes on as before: until Services and proxies have heard of it.
const PRE_STOP: i64 = 5;

/// What closing the store may take after the drain.
const CLOSING: i64 = 10;

/// The template of the pods.
pub(super) fn template(plan: &Blueprint<'_>) -> PodTemplateSpec {
    let receiver = &plan.subscription.spec.receiver;
    let mut labels = receiver.pod_labels.clone();
    labels.extend(plan.labels());
    let mut annotations = receiver.pod_annotations.clone();
    let spec = spec(plan);
    let content = serde_json::to_vec(&(&spec, &labels, &annotations)).expect("a pod is JSON");
    annotations.insert(TEMPLATE_HASH.to_owned(), digest(&content));
    PodTemplateSpec {
        metadata: Some(ObjectMeta {
            labels: Some(labels),
            annotations: Some(annotations),
            ..ObjectMeta::default()
        }),
        spec: Some(spec),
    }
}

fn spec(plan: &Blueprint<'_>) -> PodSpec {
    let receiver = &plan.subscription.spec.receiver;
    let pull_secrets = receiver.image_pull_secrets.iter();
    let pull_secrets: Vec<LocalObjectReference> = pull_secrets
        .map(|secret| LocalObjectReference {
            name: secret.name.clone(),
        })
        .collect();
    let mounts = mounts(plan);
    let volume_mounts = mounts.iter().map(Mount::mount).collect();
    PodSpec {
        service_account_name: Some(plan.name().to_owned()),
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        termination_grace_period_seconds: Some(PRE_STOP + DRAIN.as_secs().cast_signed() + CLOSING),
        security_context: Some(PodSecurityContext {
            run_as_non_root: Some(true),
            run_as_user: Some(NOBODY),
            run_as_group: Some(NOBODY),
            fs_group: Some(NOBODY),
            // A large store is not walked through at each start.
            fs_group_change_policy: Some("OnRootMismatch".to_owned()),
            seccomp_profile: Some(seccomp()),
            ..PodSecurityContext::default()
        }),
        containers: vec![container(plan, volume_mounts)],
        volumes: Some(mounts.into_iter().map(|mount| mount.volume).collect()),
        affinity: passed_on::<Affinity>(&receiver.affinity),
        tolerations: some(
            receiver
                .tolerations
                .iter()
                .map(|one| Toleration {
                    key: one.key.clone(),
                    operator: one.operator.clone(),
                    value: one.value.clone(),
                    effect: one.effect.clone(),
                    toleration_seconds: one.toleration_seconds,
                })
                .collect(),
        ),
        topology_spread_constraints: some(spread(plan)),
        image_pull_secrets: some(pull_secrets),
        ..PodSpec::default()
    }
}

fn container(plan: &Blueprint<'_>, volume_mounts: Vec<VolumeMount>) -> Container {
    let port = |name: &str, port: i32| ContainerPort {
        name: Some(name.to_owned()),
        container_port: port,
        protocol: Some("TCP".to_owned()),
        ..ContainerPort::default()
    };
    let file = format!("{SETTINGS}/{FILE}");
    let args = ["receiver", "--config", &file, "--log-format", "json"];
    Container {
        name: super::RECEIVER.to_owned(),
        image: Some(plan.options.image.clone()),
        image_pull_policy: Some("IfNotPresent".to_owned()),
        args: Some(args.map(str::to_owned).to_vec()),
        ports: Some(vec![
            port("public", PUBLIC_PORT),
            port("admin", ADMIN_PORT),
            port("feed", FEED_PORT),
        ]),
        resources: Some(resources(plan)),
        security_context: Some(SecurityContext {
            allow_privilege_escalation: Some(false),
            privileged: Some(false),
            read_only_root_filesystem: Some(true),
            run_as_non_root: Some(true),
            capabilities: Some(Capabilities {
                drop: Some(vec!["ALL".to_owned()]),
                add: None,
            }),
            seccomp_profile: Some(seccomp()),
            ..SecurityContext::default()
        }),
        lifecycle: Some(Lifecycle {
            pre_stop: Some(LifecycleHandler {
                sleep: Some(SleepAction { seconds: PRE_STOP }),
                ..LifecycleHandler::default()
            }),
            ..Lifecycle::default()
        }),
        // Opening a large store takes its time; until then nothing else is asked.
        startup_probe: Some(probe("/livez", 1, 300)),
        // It serves at all. What it waits for is no reason to start it anew.
        liveness_probe: Some(probe("/livez", 10, 6)),
        // It has a key: with none, every notification would get a 503.
        readiness_probe: Some(probe("/readyz", 2, 3)),
        termination_message_policy: Some("FallbackToLogsOnError".to_owned()),
        volume_mounts: Some(volume_mounts),
        ..Container::default()
    }
}

fn probe(path: &str, every: i32, failures: i32) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.to_owned()),
            port: IntOrString::String("admin".to_owned()),
            ..HTTPGetAction::default()
        }),
        period_seconds: Some(every),
        timeout_seconds: Some(5),
        failure_threshold: Some(failures),
        ..Probe::default()
    }
}

fn seccomp() -> SeccompProfile {
    SeccompProfile {
        type_: "RuntimeDefault".to_owned(),
        ..SeccompProfile::default()
    }
}

/// What the spec says; for what it leaves out, room for the load of docs/performance.md.
fn resources(plan: &Blueprint<'_>) -> ResourceRequirements {
    let given = &plan.subscription.spec.receiver.resources;
    // Beside one of the user's for the same resource, one of ours could contradict it, and no pod
    // would be made.
    let usual = |all: &[(&str, &str)]| -> BTreeMap<String, Quantity> {
        let free = all.iter().filter(|(name, _)| {
            !given.requests.contains_key(*name) && !given.limits.contains_key(*name)
        });
        free.map(|(name, amount)| ((*name).to_owned(), Quantity((*amount).to_owned())))
            .collect()
    };
    let with = |given: &BTreeMap<String, Value>, mut all: BTreeMap<String, Quantity>| {
        all.extend(given.iter().map(|(name, amount)| {
            let text = amount.as_str().map(str::to_owned);
            (
                name.clone(),
                Quantity(text.unwrap_or_else(|| amount.to_string())),
            )
        }));
        (!all.is_empty()).then_some(all)
    };
    ResourceRequirements {
        requests: with(
            &given.requests,
            usual(&[("cpu", "50m"), ("memory", "64Mi")]),
        ),
        limits: with(&given.limits, usual(&[("memory", "256Mi")])),
        ..ResourceRequirements::default()
    }
}

/// What the spec says; of several pods without a word, one per node if that can be.
fn spread(plan: &Blueprint<'_>) -> Vec<TopologySpreadConstraint> {
    let receiver = &plan.subscription.spec.receiver;
    let given = receiver.topology_spread_constraints.iter();
    let given: Vec<_> = given.filter_map(passed_on).collect();
    if !given.is_empty() || receiver.replicas < 2 {
        return given;
    }
    vec![TopologySpreadConstraint {
        max_skew: 1,
        topology_key: "kubernetes.io/hostname".to_owned(),
        when_unsatisfiable: "ScheduleAnyway".to_owned(),
        label_selector: Some(LabelSelector {
            match_labels: Some(plan.selector()),
            ..LabelSelector::default()
        }),
        ..TopologySpreadConstraint::default()
    }]
}

/// What the resource passes through as it is; validated to be of this shape.
fn passed_on<T: DeserializeOwned>(given: &Map<String, Value>) -> Option<T> {
    if given.is_empty() {
        return None;
    }
    serde_json::from_value(Value::Object(given.clone())).ok()
}

fn some<T>(all: Vec<T>) -> Option<Vec<T>> {
    (!all.is_empty()).then_some(all)
}

struct Mount {
    volume: Volume,
    path: String,
    writable: bool,
}

impl Mount {
    fn mount(&self) -> VolumeMount {
        VolumeMount {
            name: self.volume.name.clone(),
            mount_path: self.path.clone(),
            read_only: Some(!self.writable),
            ..VolumeMount::default()
        }
    }

    /// A whole Secret. One that is `optional` may come later, and holds nothing up until then.
    fn secret(volume: &str, name: &str, path: String, optional: bool) -> Self {
        Self {
            volume: Volume {
                name: volume.to_owned(),
                secret: Some(SecretVolumeSource {
                    secret_name: Some(name.to_owned()),
                    optional: optional.then_some(true),
                    // For the pod's group, which is nobody else's.
                    default_mode: Some(0o440),
                    ..SecretVolumeSource::default()
                }),
                ..Volume::default()
            },
            path,
            writable: false,
        }
    }
}

fn mounts(plan: &Blueprint<'_>) -> Vec<Mount> {
    let settings = Mount {
        volume: Volume {
            name: "settings".to_owned(),
            config_map: Some(ConfigMapVolumeSource {
                name: settings_map::name(plan),
                default_mode: Some(0o440),
                ..ConfigMapVolumeSource::default()
            }),
            ..Volume::default()
        },
        path: SETTINGS.to_owned(),
        writable: false,
    };
    let data = Mount {
        volume: Volume {
            name: "data".to_owned(),
            persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
                claim_name: claim::name(plan),
                ..PersistentVolumeClaimVolumeSource::default()
            }),
            ..Volume::default()
        },
        path: DATA.to_owned(),
        writable: true,
    };
    let keys = Mount::secret("keys", &secret_name(plan.name()), KEYS.to_owned(), false);
    let mut all = vec![settings, data, keys];
    if plan.feed_token.is_some() {
        let name = feed_token::name(plan);
        all.push(Mount::secret("feed", &name, FEED.to_owned(), false));
    }
    let tls = &plan.subscription.spec.receiver.tls.secret_name;
    if !tls.is_empty() {
        all.push(Mount::secret("tls", tls, TLS.to_owned(), false));
    }
    // One that is missing makes its sink unwell, and nothing else.
    all.extend(sink_secrets(plan).into_iter().map(|name| {
        let volume = format!("sink-{}", digest(name.as_bytes()));
        Mount::secret(&volume, name, format!("{SINKS}/{name}"), true)
    }));
    all
}

/// The Secrets that sinks name, each once.
fn sink_secrets<'a>(plan: &Blueprint<'a>) -> BTreeSet<&'a str> {
    let sinks = plan.subscription.spec.sinks.iter();
    sinks
        .filter_map(|sink| sink.http.as_ref())
        .flat_map(|http| {
            let headers = http.headers_from.as_ref();
            let headers = headers.map(|headers| headers.secret_ref.name.as_str());
            let authority = http.ca_secret_ref.as_ref();
            headers
                .into_iter()
                .chain(authority.map(|authority| authority.name.as_str()))
        })
        .collect()
}

//! What matters in the objects, not what they look like. Oracle: the restricted Pod Security Standard
//! and the rules of Kubernetes, by hand; that the API server takes them is tried on a real one.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::super::sample::subscription;
use super::*;

fn options() -> PodOptions {
    PodOptions {
        image: "registry.example.com/bellhop:1".to_owned(),
        operator_namespace: Some("bellhop-system".to_owned()),
        monitoring_namespaces: vec!["monitoring".to_owned()],
    }
}

fn around() -> Surroundings {
    Surroundings {
        cluster_id: "c".to_owned(),
        registry_url: "https://registry.example.com/registry/v1".to_owned(),
        api_url: "https://api.example.com/v1.3".to_owned(),
        authorities: None,
        allow_plain_http: false,
    }
}

fn build_with(options: &PodOptions, change: impl FnOnce(&mut Value)) -> Vec<Built> {
    let subscription = subscription(|object| {
        object["spec"]["url"] = json!("https://hooks.example.com:8443/redeam");
        change(object);
    });
    let config = config(&subscription, &around()).expect("valid");
    let token = Secret::new("the-feed-token-1234");
    let asks = config.settings.feed.token_file.is_some();
    objects(&Blueprint {
        subscription: &subscription,
        config: &config,
        feed_token: asks.then_some(&token),
        options,
    })
}

fn build(change: impl FnOnce(&mut Value)) -> Vec<Built> {
    build_with(&options(), change)
}

fn spec(change: Value) -> impl FnOnce(&mut Value) {
    move |object| json_patch::merge(&mut object["spec"], &change)
}

fn one<'a>(all: &'a [Built], kind: Kind, name: &str) -> &'a Value {
    let mut found = all.iter();
    let found = found.find(|one| one.kind == kind && one.name == name);
    &found.unwrap_or_else(|| panic!("no {kind:?} {name}")).object
}

fn pod(all: &[Built]) -> &Value {
    &one(all, Kind::StatefulSet, "shop")["spec"]["template"]
}

fn names(all: &[Built]) -> BTreeSet<(Kind, &str)> {
    all.iter()
        .map(|one| (one.kind, one.name.as_str()))
        .collect()
}

#[test]
fn every_object_is_labelled_owned_and_takes_the_schema_of_its_kind() {
    let all = build(spec(json!({
        "exposure": { "ingress": {} },
    })));
    for one in &all {
        let metadata = &one.object["metadata"];
        assert_eq!(metadata["namespace"], "ns", "{one:?}");
        assert_eq!(
            metadata["labels"],
            json!({
                "app.kubernetes.io/name": "bellhop",
                "app.kubernetes.io/component": "receiver",
                "app.kubernetes.io/instance": "shop",
                "app.kubernetes.io/managed-by": "bellhop",
            })
        );
        let owners = metadata["ownerReferences"].as_array();
        // The volume outlives the subscription unless told otherwise.
        let owned = one.kind != Kind::PersistentVolumeClaim;
        assert_eq!(owners.is_some(), owned, "{one:?}");
        assert_eq!(one.object["kind"], one.kind.as_str());
        assert_eq!(one.object["apiVersion"], one.kind.resource().api_version);
        // Credentials and tokens are in Secrets only.
        let secret = one.kind == Kind::Secret;
        let text = one.object.to_string();
        assert_eq!(text.contains("dGhlLWZlZWQtdG9rZW4t"), secret, "{text}");
        assert!(!text.contains("the-feed-token"), "{text}");
    }
    let deleted = build(spec(
        json!({ "state": { "embedded": { "onDelete": "Delete" } } }),
    ));
    let claim = one(&deleted, Kind::PersistentVolumeClaim, "shop-data");
    assert_eq!(claim["metadata"]["ownerReferences"][0]["uid"], "u-1");
}

/// No spec may ask for a second receiver yet. Whoever allows it finds its budget here.
#[test]
fn two_receivers_have_a_budget() {
    let one_receiver = subscription(|_| {});
    let config = config(&one_receiver, &around()).expect("valid");
    let two = subscription(spec(json!({ "receiver": { "replicas": 2 } })));
    let all = objects(&Blueprint {
        subscription: &two,
        config: &config,
        feed_token: None,
        options: &options(),
    });
    let budget = one(&all, Kind::PodDisruptionBudget, "shop");
    assert_eq!(budget["spec"]["maxUnavailable"], 1);
    let selected = budget["spec"]["selector"]["matchLabels"].as_object();
    let labels = &pod(&all)["metadata"]["labels"];
    let mut selected = selected.expect("labels").iter();
    assert!(selected.all(|(name, value)| labels[name] == *value));
}

#[test]
fn the_usual_objects_and_those_that_the_spec_asks_for() {
    let usual = [
        (Kind::ServiceAccount, "shop"),
        (Kind::ConfigMap, "shop-settings"),
        (Kind::Secret, "shop-feed"),
        (Kind::PersistentVolumeClaim, "shop-data"),
        (Kind::Service, "shop"),
        (Kind::Service, "shop-feed"),
        (Kind::NetworkPolicy, "shop"),
        (Kind::StatefulSet, "shop"),
    ];
    let usual = BTreeSet::from(usual);
    assert_eq!(names(&build(|_| {})), usual);
    let with = |more: Value, kind: Kind| {
        let all = build(spec(more));
        let names = names(&all);
        let more: BTreeSet<_> = names.difference(&usual).copied().collect();
        assert_eq!(more, BTreeSet::from([(kind, "shop")]));
    };
    with(json!({ "exposure": { "ingress": {} } }), Kind::Ingress);
    let route = json!({ "exposure": { "httpRoute": { "parentRefs": [{ "name": "gate" }] } } });
    with(route, Kind::HttpRoute);
    let without = |less: Value, gone: (Kind, &str)| {
        let all = build(spec(less));
        let names = names(&all);
        let less: BTreeSet<_> = usual.difference(&names).copied().collect();
        assert_eq!(less, BTreeSet::from([gone]));
    };
    let feed = json!({ "feed": { "auth": "None" } });
    without(feed, (Kind::Secret, "shop-feed"));
    let policy = json!({ "networkPolicy": { "enabled": false } });
    without(policy, (Kind::NetworkPolicy, "shop"));
}

/// The rules of the restricted Pod Security Standard, and what is asked beyond them.
#[test]
fn the_pod_keeps_to_the_restricted_standard() {
    let all = build(|_| {});
    let spec = &pod(&all)["spec"];
    for field in ["hostNetwork", "hostPID", "hostIPC", "initContainers"] {
        assert!(spec[field].is_null(), "{field}");
    }
    let context = &spec["securityContext"];
    assert_eq!(context["runAsNonRoot"], true);
    for field in ["runAsUser", "runAsGroup", "fsGroup"] {
        assert_eq!(context[field], 65532, "{field}");
    }
    assert_eq!(context["seccompProfile"]["type"], "RuntimeDefault");
    let container = &spec["containers"][0];
    let context = &container["securityContext"];
    assert_eq!(context["allowPrivilegeEscalation"], false);
    assert_eq!(context["readOnlyRootFilesystem"], true);
    assert_eq!(context["capabilities"], json!({ "drop": ["ALL"] }));
    assert_eq!(spec["automountServiceAccountToken"], false);
    assert_eq!(spec["enableServiceLinks"], false);
    assert_eq!(
        one(&all, Kind::ServiceAccount, "shop")["automountServiceAccountToken"],
        false
    );
    // Secrets are files, whole folders of them, so that a change arrives.
    assert!(container["env"].is_null() && container["envFrom"].is_null());
    for mount in container["volumeMounts"].as_array().expect("mounts") {
        assert!(mount["subPath"].is_null(), "{mount}");
        assert_eq!(
            mount["readOnly"] == false,
            mount["name"] == "data",
            "{mount}"
        );
    }
    let kinds = ["configMap", "secret", "persistentVolumeClaim"];
    for volume in spec["volumes"].as_array().expect("volumes") {
        assert!(
            kinds.iter().any(|kind| !volume[*kind].is_null()),
            "{volume}"
        );
    }
}

#[test]
fn the_end_has_time_for_all_that_it_does() {
    let all = build(|_| {});
    let spec = &pod(&all)["spec"];
    let sleep = spec["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"].as_u64();
    let config = &one(&all, Kind::ConfigMap, "shop-settings")["data"]["settings.yaml"];
    let config = ReceiverConfig::parse(config.as_str().expect("a text")).expect("read back");
    let needed = sleep.expect("a sleep") + config.process.drain.as_secs();
    let grace = spec["terminationGracePeriodSeconds"]
        .as_u64()
        .expect("a period");
    assert!(grace > needed, "{grace} s for {needed} s");
}

/// A pod that waits for keys or for its store lives: to start it again would change nothing.
#[test]
fn each_probe_asks_for_what_it_decides() {
    let all = build(|_| {});
    let container = &pod(&all)["spec"]["containers"][0];
    let ports = container["ports"].as_array().expect("ports");
    assert!(ports.iter().any(|port| port["name"] == "admin"));
    for (probe, path) in [
        ("startupProbe", "/livez"),
        ("livenessProbe", "/livez"),
        ("readinessProbe", "/readyz"),
    ] {
        let asked = &container[probe]["httpGet"];
        assert_eq!(*asked, json!({ "path": path, "port": "admin" }), "{probe}");
    }
}

/// A usual limit beside a larger request of the user's would have no pod made at all.
#[test]
fn usual_resources_do_not_contradict_given_ones() {
    let resources = |given: Value| {
        let all = build(spec(json!({ "receiver": { "resources": given } })));
        pod(&all)["spec"]["containers"][0]["resources"].clone()
    };
    assert_eq!(
        resources(json!({})),
        json!({ "requests": { "cpu": "50m", "memory": "64Mi" }, "limits": { "memory": "256Mi" } })
    );
    for (given, wanted) in [
        (
            json!({ "requests": { "memory": "512Mi" } }),
            json!({ "requests": { "cpu": "50m", "memory": "512Mi" } }),
        ),
        (
            json!({ "limits": { "memory": "32Mi" } }),
            json!({ "requests": { "cpu": "50m" }, "limits": { "memory": "32Mi" } }),
        ),
        (
            json!({ "limits": { "cpu": 1 } }),
            json!({ "requests": { "memory": "64Mi" }, "limits": { "cpu": "1", "memory": "256Mi" } }),
        ),
    ] {
        assert_eq!(resources(given), wanted);
    }
}

#[test]
fn all_of_the_receivers_spec_reaches_the_pod() {
    let given = json!({ "receiver": {
        "resources": { "requests": { "cpu": 1, "memory": "1Gi" }, "limits": { "memory": "2Gi" } },
        "affinity": { "nodeAffinity": { "preferredDuringSchedulingIgnoredDuringExecution": [] } },
        "tolerations": [{ "key": "k", "operator": "Exists", "effect": "NoSchedule" }],
        "topologySpreadConstraints":
            [{ "maxSkew": 2, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule" }],
        "podLabels": { "team": "shop", "app.kubernetes.io/name": "mine" },
        "podAnnotations": { "a": "b" },
        "imagePullSecrets": [{ "name": "pull" }],
        "tls": { "secretName": "cert" },
    } });
    let all = build(spec(given));
    let (metadata, spec) = (&pod(&all)["metadata"], &pod(&all)["spec"]);
    let container = &spec["containers"][0];
    assert_eq!(
        container["resources"],
        json!({ "requests": { "cpu": "1", "memory": "1Gi" }, "limits": { "memory": "2Gi" } })
    );
    assert!(spec["affinity"]["nodeAffinity"].is_object());
    assert_eq!(spec["tolerations"][0]["key"], "k");
    assert_eq!(spec["topologySpreadConstraints"][0]["topologyKey"], "zone");
    assert_eq!(metadata["labels"]["team"], "shop");
    // Whose pods these are is not for a label to change.
    assert_eq!(metadata["labels"]["app.kubernetes.io/name"], "bellhop");
    assert_eq!(metadata["annotations"]["a"], "b");
    assert_eq!(spec["imagePullSecrets"], json!([{ "name": "pull" }]));
    let volumes = spec["volumes"].as_array().expect("volumes");
    let tls = volumes.iter().find(|volume| volume["name"] == "tls");
    assert_eq!(tls.expect("a volume")["secret"]["secretName"], "cert");
    let service = &one(&all, Kind::Service, "shop")["spec"]["ports"][0];
    assert_eq!(service["appProtocol"], "https");
}

#[test]
fn the_selector_fits_the_pods_and_never_changes_with_the_spec() {
    let all = build(spec(json!({ "receiver": { "podLabels": { "x": "y" } } })));
    let set = &one(&all, Kind::StatefulSet, "shop")["spec"];
    let selector = set["selector"]["matchLabels"].as_object().expect("labels");
    for (name, value) in selector {
        assert_eq!(&pod(&all)["metadata"]["labels"][name], value);
    }
    let plain = build(|_| {});
    let before = &one(&plain, Kind::StatefulSet, "shop")["spec"]["selector"];
    assert_eq!(&set["selector"], before);
    assert_eq!(set["podManagementPolicy"], "Parallel");
    assert!(set["volumeClaimTemplates"].is_null());
    for service in ["shop", "shop-feed"] {
        let of = &one(&all, Kind::Service, service)["spec"]["selector"];
        assert_eq!(of.as_object(), Some(selector));
    }
}

/// What is in the settings file only is taken over by the pods that run.
#[test]
fn only_what_is_in_the_pod_replaces_it() {
    let hash = |change: Value| template_hash(&build(spec(change)));
    let plain = hash(json!({}));
    assert!(!plain.is_empty());
    for same in [
        json!({ "fetch": { "requestsPerSecond": 3 } }),
        json!({ "notifications": [{ "type": "Rate" }] }),
        json!({ "sinks": [{ "name": "a", "http": { "uri": "https://sink.example.com" } }] }),
        json!({ "state": { "embedded": { "size": "5Gi" } } }),
        json!({ "exposure": { "ingress": {} } }),
    ] {
        assert_eq!(hash(same.clone()), plain, "{same}");
    }
    for other in [
        json!({ "receiver": { "podLabels": { "a": "b" } } }),
        json!({ "receiver": { "tls": { "secretName": "cert" } } }),
        json!({ "feed": { "auth": "None" } }),
    ] {
        assert_ne!(hash(other.clone()), plain, "{other}");
    }
    let newer = PodOptions {
        image: "registry.example.com/bellhop:2".to_owned(),
        ..options()
    };
    assert_ne!(template_hash(&build_with(&newer, |_| {})), plain);
    let set = &build(|_| {});
    let set = one(set, Kind::StatefulSet, "shop");
    let noted = &set["spec"]["template"]["metadata"]["annotations"][TEMPLATE_HASH];
    assert_eq!(noted.as_str(), Some(plain.as_str()));
}

#[test]
fn a_missing_secret_of_a_sink_holds_up_no_pod() {
    let all = build(spec(json!({ "sinks": [
        { "name": "a", "http": { "uri": "https://a.example.com",
            "headersFrom": { "secretRef": { "name": "shared" } },
            "caSecretRef": { "name": "shared" } } },
        { "name": "b", "http": { "uri": "https://b.example.com",
            "caSecretRef": { "name": "other.ca" } } },
    ] })));
    let spec = &pod(&all)["spec"];
    let volumes = spec["volumes"].as_array().expect("volumes");
    let of = |name: &str| {
        let mut found = volumes
            .iter()
            .filter(|one| one["secret"]["secretName"] == name);
        let volume = found.next().expect("a volume").clone();
        assert!(found.next().is_none(), "{name} is mounted once");
        volume
    };
    for name in ["shared", "other.ca"] {
        assert_eq!(of(name)["secret"]["optional"], true);
    }
    assert!(of("shop-bellhop")["secret"]["optional"].is_null());
    let config = &one(&all, Kind::ConfigMap, "shop-settings")["data"]["settings.yaml"];
    let config = ReceiverConfig::parse(config.as_str().expect("a text")).expect("read back");
    let mounts = spec["containers"][0]["volumeMounts"]
        .as_array()
        .expect("mounts");
    for sink in &config.settings.sinks {
        let file = sink.ca_file.as_ref().expect("a file");
        let folder = file.parent().and_then(|folder| folder.to_str());
        assert!(
            mounts
                .iter()
                .any(|mount| mount["mountPath"].as_str() == folder),
            "{folder:?} is not mounted"
        );
    }
}

#[test]
fn the_way_in_is_by_host_and_path_of_the_url() {
    let all = build(spec(json!({ "exposure": { "ingress": {
        "className": "nginx", "annotations": { "n/a": "b" }, "tls": { "secretName": "cert" } } } })));
    let ingress = one(&all, Kind::Ingress, "shop");
    assert_eq!(ingress["metadata"]["annotations"]["n/a"], "b");
    assert_eq!(
        ingress["spec"],
        json!({
            "ingressClassName": "nginx",
            "rules": [{ "host": "hooks.example.com", "http": { "paths": [{
                "path": "/redeam", "pathType": "Prefix",
                "backend": { "service": { "name": "shop", "port": { "number": 8080 } } } }] } }],
            "tls": [{ "hosts": ["hooks.example.com"], "secretName": "cert" }],
        })
    );
    let all = build(spec(json!({
        "url": "https://hooks.example.com",
        "exposure": { "httpRoute": { "parentRefs":
            [{ "name": "gate", "namespace": "infra", "sectionName": "https" }] } } })));
    let route = one(&all, Kind::HttpRoute, "shop");
    assert_eq!(
        route["spec"],
        json!({
            "parentRefs": [{ "name": "gate", "namespace": "infra", "sectionName": "https" }],
            "hostnames": ["hooks.example.com"],
            "rules": [{
                "matches": [{ "path": { "type": "PathPrefix", "value": "/" } }],
                "backendRefs": [{ "name": "shop", "port": 8080 }],
            }],
        })
    );
    let address = build(spec(json!({
        "url": "https://192.0.2.1/r", "exposure": { "ingress": {} } })));
    let ingress = one(&address, Kind::Ingress, "shop");
    assert!(ingress["spec"]["rules"][0]["host"].is_null());
}

#[test]
fn the_policy_lets_in_who_has_business_there() {
    let all = build(|_| {});
    let policy = &one(&all, Kind::NetworkPolicy, "shop")["spec"];
    assert_eq!(policy["policyTypes"], json!(["Ingress"]));
    assert!(policy["egress"].is_null());
    let rules = policy["ingress"].as_array().expect("rules");
    let from = |port: &str| {
        let mut found = rules.iter();
        let rule = found.find(|rule| rule["ports"][0]["port"] == port);
        rule.expect("a rule")["from"].clone()
    };
    assert!(from("public").is_null(), "everybody");
    assert_eq!(
        from("feed"),
        json!([{ "podSelector": {} }]),
        "the own namespace"
    );
    let admin = from("admin");
    assert_eq!(admin.as_array().map(Vec::len), Some(2));
    assert_eq!(
        admin[0]["podSelector"]["matchLabels"]["app.kubernetes.io/component"],
        "operator"
    );
    let outside = PodOptions {
        operator_namespace: None,
        ..options()
    };
    let all = build_with(
        &outside,
        spec(json!({ "networkPolicy": {
        "egress": [{ "to": [{ "ipBlock": { "cidr": "192.0.2.0/24" } }] }] } })),
    );
    let policy = &one(&all, Kind::NetworkPolicy, "shop")["spec"];
    assert_eq!(policy["policyTypes"], json!(["Ingress", "Egress"]));
    assert_eq!(
        policy["egress"][0]["to"][0]["ipBlock"]["cidr"],
        "192.0.2.0/24"
    );
    assert!(policy["ingress"][2]["from"].is_null());
}

#[test]
fn a_budget_and_a_spread_from_two_pods_on() {
    let subscription = subscription(|_| {});
    let config = config(&subscription, &around()).expect("valid");
    let mut two = subscription.clone();
    two.spec.receiver.replicas = 2;
    let options = options();
    let of = |subscription| {
        objects(&Blueprint {
            subscription,
            config: &config,
            feed_token: None,
            options: &options,
        })
    };
    let kind = Kind::PodDisruptionBudget;
    assert!(of(&subscription).iter().all(|one| one.kind != kind));
    let two = of(&two);
    assert_eq!(one(&two, kind, "shop")["spec"]["maxUnavailable"], 1);
    let spread = &pod(&two)["spec"]["topologySpreadConstraints"];
    assert_eq!(spread[0]["topologyKey"], "kubernetes.io/hostname");
}

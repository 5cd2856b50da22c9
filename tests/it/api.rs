//! Tests of `api`.

mod conditions;

use bellhop::api::condition::page;
use bellhop::api::crd;

#[test]
fn the_committed_crd_and_pages_are_fresh() {
    for (file, made, refresh) in [
        (
            "crds/bellhop.dev_webhooksubscriptions.yaml",
            crd::crd_yaml(),
            crd::REFRESH_CRD,
        ),
        ("docs/resource.md", crd::reference(), crd::REFRESH_REFERENCE),
        ("docs/conditions.md", page::page(), page::REFRESH_CONDITIONS),
    ] {
        if std::env::var_os("BELLHOP_REFRESH").is_some() {
            std::fs::write(file, &made).unwrap();
        }
        let committed = std::fs::read_to_string(file).unwrap_or_default();
        assert!(committed == made, "{file} is stale; run: {refresh}");
    }
}

mod manifests {
    use bellhop::api::manifest::{Mistakes, read_all};

    fn mistakes(text: &str) -> String {
        match read_all([("file.yaml", text.as_bytes())]) {
            Ok(read) => format!("right: {} {}", read.subscriptions.len(), read.secrets.len()),
            Err(Mistakes(found)) => found
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join("\n"),
        }
    }

    #[test]
    fn the_examples_are_right() {
        for file in ["minimal", "variants/full", "variants/orders-sink"] {
            let text = std::fs::read_to_string(format!("examples/{file}.yaml")).unwrap();
            let found = mistakes(&text);
            assert!(found.starts_with("right: 1 "), "{file}: {found}");
        }
    }

    const BAD: &str = r#"apiVersion: bellhop.dev/v1alpha1
kind: WebhookSubscription
metadata: { name: Redeam_Sandbox, namespace: shop, lables: {} }
spec:
  environment: sandbx
  url: http://hooks.example.com/redeam
  credentialSecretRef: { name: redeam-keys }
  notifications:
    - type: Availability
      operations: [updated]
    - type: Bookings
  signature: { maxAge: 1d, maxAge: 2h, scheme: Auto }
  fetch:
    requestsPerSecond: "10"
    availabilityHorizonDays: 9000
    removalGuard: 10
  sinks:
    - name: orders
      http:
        ref: { name: orders, port: 99999 }
        uri: ftp://x
    - name: feed
  suspend: yes
---
apiVersion: v1
kind: Secret
metadata: { name: redeam-keys, namespace: shop }
data: { apiKey: "not base64!" }
stringData: { apiSecret: 12345 }
---
apiVersion: apps/v1
kind: Deployment
metadata: { name: x }
"#;

    #[test]
    fn every_mistake_of_a_file_is_listed_with_its_place() {
        let expected = "\
file.yaml:3:19: metadata.name: `Redeam_Sandbox` cannot be a name; write a metadata.name of at most 40 lowercase letters, digits and dashes, starting with a letter and ending without a dash: Services and Secrets are named after it
file.yaml:3:52: metadata.lables: unknown field; did you mean `labels`?
file.yaml:5:16: spec.environment: `sandbx`; write `sandbox`, if that is meant, or one of production and sandbox
file.yaml:6:8: spec.url: write an https URL: the provider posts to nothing else
file.yaml:7:3: spec.credentialSecretRef: unknown field; did you mean `credentialsSecretRef`?
file.yaml:10:19: spec.notifications[0].operations: Availability and PriceSchedule have no operations: leave `operations` out
file.yaml:11:13: spec.notifications[1].type: `Bookings`; write `Booking`, if that is meant, or one of ChannelBinding, Supplier, Product, Rate, Availability, PriceSchedule and Booking
file.yaml:12:24: spec.signature.maxAge: `1d` is not a duration; write whole numbers of at most five digits with the units h, m, s and ms, such as `90s`, `24h` or `1h30m`, from 1m to 720h
file.yaml:12:28: spec.signature.maxAge: the field is there twice; write it once
file.yaml:14:24: spec.fetch.requestsPerSecond: `10`; write a whole number from 1 to 1000, without quotes
file.yaml:15:30: spec.fetch.availabilityHorizonDays: 9000 is out of range; write a number from 1 to 730
file.yaml:16:19: spec.fetch.removalGuard: the number 10; write it in quotes: text is expected here
file.yaml:20:9: spec.sinks[0].http: write exactly one of `ref` (a Service) and `uri`
file.yaml:20:36: spec.sinks[0].http.ref.port: 99999 is out of range; write a number from 1 to 65535
file.yaml:21:14: spec.sinks[0].http.uri: write an address that begins with http:// or https://
file.yaml:22:7: spec.sinks[1]: a sink needs exactly one kind: write `http:`
file.yaml:22:13: spec.sinks[1].name: `feed` is the built-in feed: write another name
file.yaml:23:12: spec.suspend: `yes`; write true or false, without quotes
file.yaml:28:17: data.apiKey: not base64; encode it, or write it as it is under `stringData`
file.yaml:29:26: stringData.apiSecret: a number; write it in quotes: text is expected here
file.yaml:32:7: kind: `Deployment` is not read; `bellhop.dev/v1alpha1` WebhookSubscription and `v1` Secret are read, nothing else: remove it or move it to another file";
        let found = mistakes(BAD);
        for (found, expected) in found.lines().zip(expected.lines()) {
            assert_eq!(found, expected);
        }
        assert_eq!(found, expected);
    }

    /// What stands in for a wrong value while the rest is checked makes no mistakes of its own.
    #[test]
    fn a_wrong_word_is_one_mistake() {
        let text = "apiVersion: bellhop.dev/v1alpha1
kind: WebhookSubscription
metadata: { name: redeam }
spec:
  environment: sandbox
  url: https://hooks.example.com
  credentialsSecretRef: { name: keys }
  notifications: [{ type: Bookings }, { type: ChannelBinding }, { type: Rate, operations: [updatd] }]
  sinks: [{ name: a, http: { uri: 'https://x.example' }, types: [Rat, ChannelBinding] }]
---
apiVersion: v1
kind: Secret
metadata: { name: keys }
stringData: { apiKey: a }
";
        let found = mistakes(text);
        let paths: Vec<&str> = found
            .lines()
            .map(|line| line.split(": ").nth(1).unwrap())
            .collect();
        assert_eq!(
            paths,
            [
                "spec.notifications[0].type",
                "spec.notifications[2].operations[0]",
                "spec.sinks[0].types[0]",
                // The Secret's own, said in the same breath: it lacks a key.
                "spec.credentialsSecretRef.name",
            ]
        );
        let text = text
            .replace("Bookings", "Booking")
            .replace("updatd", "updated")
            .replace("Rat,", "Rate,");
        assert_eq!(
            mistakes(&text),
            "file.yaml:7:33: spec.credentialsSecretRef.name: Secret default/keys has no key `apiSecret`; put the provider's apiSecret there"
        );
        let twice = format!("{text}---\n{}", text.split("---\n").nth(1).unwrap());
        let found = mistakes(&twice);
        assert!(
            found.contains("file.yaml:18:19: metadata.name: Secret default/keys is there twice, first at file.yaml:11; remove one"),
            "{found}"
        );
    }

    #[test]
    fn wrong_files_get_a_hint() {
        const READ: &str =
            "`bellhop.dev/v1alpha1` WebhookSubscription and `v1` Secret are read, nothing else";
        for (text, expected) in [
            ("", "file.yaml: no document in it; give a YAML file with a WebhookSubscription".to_owned()),
            ("---\n# nothing\n---\n", "file.yaml: no document in it; give a YAML file with a WebhookSubscription".to_owned()),
            ("\0\0", "file.yaml: not text in UTF-8; give a YAML file with a WebhookSubscription".to_owned()),
            ("just words", format!("file.yaml:1:1: text instead of an object; {READ}")),
            ("[1]", format!("file.yaml:1:1: a list instead of an object; {READ}")),
            ("{\"a\": 1}", format!("file.yaml:1:1: neither apiVersion nor kind; {READ}")),
            ("kind: WebhookSubscriptoin\napiVersion: bellhop.dev/v1alpha1", "file.yaml:1:7: kind: unknown kind `WebhookSubscriptoin`; did you mean `WebhookSubscription`?".to_owned()),
            ("kind: WebhookSubscription\napiVersion: bellhop.dev/v1", "file.yaml:2:13: apiVersion: wrong for a WebhookSubscription; write `bellhop.dev/v1alpha1`".to_owned()),
            ("kind: List\napiVersion: v1", "file.yaml:1:7: kind: a List is not read; write each object as a document of its own, with `---` between".to_owned()),
        ] {
            assert_eq!(mistakes(text), expected, "{text:?}");
        }
        let big = "#".repeat(1_048_577);
        assert_eq!(
            mistakes(&big),
            "file.yaml: 1048577 bytes; a manifest has at most 1048576: is this the right file?"
        );
        let deep = format!("{}{}", "[".repeat(100), "]".repeat(100));
        let found = mistakes(&deep);
        assert!(found.contains("nested deeper than 64 levels"), "{found}");
        let bomb = "a: &a [x,x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d,*d]\n";
        assert!(mistakes(bomb).contains("more than 100000 values"));
    }

    #[test]
    fn secrets_never_show() {
        let text = std::fs::read_to_string("examples/variants/full.yaml").unwrap();
        let read = read_all([("f", text.as_bytes())]).unwrap();
        assert!(!format!("{read:?}").contains("not-real"));
        let secret = read.secret("shop", "redeam-keys").unwrap();
        let credentials = secret.credentials().unwrap();
        assert_eq!(credentials.api_key.expose(), "example-api-key-not-real");
        assert_eq!(
            credentials.api_secret.expose(),
            "example-api-secret-not-real"
        );
        let found = mistakes(
            "apiVersion: v1\nkind: Secret\nmetadata: {name: x}\ndata: {apiKey: hunter2!}\nstringData: {apiSecret: [hunter2]}\nhunter: 1\n",
        );
        assert!(!found.contains("hunter2"), "{found}");
    }
}

/// Objects that are accepted or refused; the oracle is the written expectation.
mod objects {
    use bellhop::api::v1alpha1::WebhookSubscription;
    use bellhop::api::validate::{validate, validate_change};
    use serde_json::{Value, json};

    /// The smallest object, with one value put at a JSON pointer.
    fn object(pointer: &str, value: Value) -> WebhookSubscription {
        let mut object = json!({
            "apiVersion": "bellhop.dev/v1alpha1",
            "kind": "WebhookSubscription",
            "metadata": { "name": "redeam", "namespace": "shop" },
            "spec": {
                "environment": "sandbox",
                "url": "https://hooks.example.com/redeam",
                "credentialsSecretRef": { "name": "redeam-keys" }
            }
        });
        let mut at = &mut object;
        for step in pointer.split('/').filter(|step| !step.is_empty()) {
            at = &mut at[step];
        }
        *at = value;
        serde_json::from_value(object).unwrap()
    }

    fn sink(http: Value) -> Value {
        json!([{ "name": "orders", "http": http }])
    }

    #[test]
    fn accepted() {
        let to = json!({ "uri": "https://x.example/" });
        let cases = [
            ("", None),
            ("metadata/name", Some(json!("a"))),
            ("metadata/name", Some(json!("a".repeat(40)))),
            ("spec/url", Some(json!("https://h.example"))),
            ("spec/url", Some(json!("https://h.example/"))),
            (
                "spec/url",
                Some(json!("https://H-1.example:65535/a%20b/~c")),
            ),
            ("spec/url", Some(json!("https://h.example/a@b"))),
            ("spec/notifications", Some(json!([{ "type": "Booking" }]))),
            (
                "spec/notifications",
                Some(json!([{ "type": "ChannelBinding", "operations": ["removed", "created"] }])),
            ),
            (
                "spec/notifications",
                Some(
                    json!([{ "type": "Rate", "operations": ["updated"], "config": { "supplierIDs": ["x"] } }]),
                ),
            ),
            (
                "spec/signature",
                Some(json!({ "maxAge": "5m", "maxSkew": "5m" })),
            ),
            ("spec/fetch/minInterval", Some(json!("0s"))),
            ("spec/fetch/removalGuard", Some(json!("100%"))),
            ("spec/fetch/availabilityHorizonDays", Some(json!(730))),
            (
                "spec/sinks",
                Some(sink(json!({ "ref": { "name": "orders" } }))),
            ),
            (
                "spec/sinks",
                Some(sink(json!({ "uri": "http://10.0.0.1:8080/e?tenant=1" }))),
            ),
            (
                "spec/sinks",
                Some(sink(
                    json!({ "uri": "https://x.example", "caSecretRef": { "name": "ca" }, "headersFrom": { "secretRef": { "name": "h" } } }),
                )),
            ),
            (
                "spec/sinks",
                Some(
                    json!([{ "name": "a", "http": to }, { "name": "b", "http": to, "types": ["Booking", "Rate"] }]),
                ),
            ),
            ("spec/state/embedded/size", Some(json!("64Mi"))),
            (
                "spec/receiver/resources/limits",
                Some(json!({ "cpu": 1, "memory": "1.5Gi" })),
            ),
            (
                "spec/receiver/affinity",
                Some(json!({ "nodeAffinity": {} })),
            ),
            (
                "spec/exposure/httpRoute/parentRefs",
                Some(json!([{ "name": "public" }])),
            ),
            // Fields of a newer version are not this one's mistake.
            ("spec/state/jetStream", Some(json!({ "servers": ["x"] }))),
        ];
        for (pointer, value) in cases {
            let object = match &value {
                None => object("spec/suspend", json!(true)),
                Some(value) => object(pointer, value.clone()),
            };
            assert_eq!(validate(&object), [], "{pointer} = {value:?}");
        }
    }

    #[test]
    fn refused() {
        let to = json!({ "uri": "https://x.example/" });
        let cases = [
            (
                "metadata/name",
                json!("Upper"),
                "metadata.name",
                "at most 40 lowercase letters",
            ),
            (
                "metadata/name",
                json!("a".repeat(41)),
                "metadata.name",
                "at most 40",
            ),
            (
                "metadata/name",
                json!("1a"),
                "metadata.name",
                "starting with a letter",
            ),
            (
                "metadata/name",
                json!("a.b"),
                "metadata.name",
                "write a metadata.name",
            ),
            (
                "spec/url",
                json!("http://h.example"),
                "spec.url",
                "write an https URL",
            ),
            (
                "spec/url",
                json!("h.example"),
                "spec.url",
                "write an https URL",
            ),
            (
                "spec/url",
                json!("https://h.example/a?b=c"),
                "spec.url",
                "without `?` and `#`",
            ),
            (
                "spec/url",
                json!("https://h.example/#a"),
                "spec.url",
                "without `?` and `#`",
            ),
            (
                "spec/url",
                json!("https://u:p@h.example/"),
                "spec.url",
                "without a user or password",
            ),
            ("spec/url", json!("https://"), "spec.url", "is not a host"),
            (
                "spec/url",
                json!("https://h.example:0/"),
                "spec.url",
                "a number from 1 to 65535",
            ),
            (
                "spec/url",
                json!("https://h.example:65536"),
                "spec.url",
                "a number from 1 to 65535",
            ),
            (
                "spec/url",
                json!("https://h.example:08"),
                "spec.url",
                "a number from 1 to 65535",
            ),
            (
                "spec/url",
                json!("https://h.example/a b"),
                "spec.url",
                "percent-encoded",
            ),
            (
                "spec/url",
                json!("https://h.example//a"),
                "spec.url",
                "without empty segments",
            ),
            (
                "spec/url",
                json!(format!("https://h.example/{}", "a".repeat(1024))),
                "spec.url",
                "write at most 1024",
            ),
            (
                "spec/credentialsSecretRef/name",
                json!("a_b"),
                "spec.credentialsSecretRef.name",
                "write 1 to 253 lowercase",
            ),
            (
                "spec/notifications",
                json!([]),
                "spec.notifications",
                "leave `notifications` out",
            ),
            (
                "spec/notifications",
                json!([{ "type": "Rate" }, { "type": "Rate" }]),
                "spec.notifications[1].type",
                "write each type once",
            ),
            (
                "spec/notifications",
                json!([{ "type": "Rate", "operations": ["created"] }]),
                "spec.notifications[0].operations",
                "write `operations: [updated]`",
            ),
            (
                "spec/notifications",
                json!([{ "type": "PriceSchedule", "operations": ["updated"] }]),
                "spec.notifications[0].operations",
                "leave `operations` out",
            ),
            (
                "spec/notifications",
                json!([{ "type": "Rate", "operations": [] }]),
                "spec.notifications[0].operations",
                "leave `operations` out",
            ),
            (
                "spec/notifications",
                json!([{ "type": "ChannelBinding", "operations": ["created", "created"] }]),
                "spec.notifications[0].operations",
                "write each once",
            ),
            (
                "spec/notifications",
                json!([{ "type": "Rate", "config": { "operations": [] } }]),
                "spec.notifications[0].config.operations",
                "beside `config`",
            ),
            (
                "spec/signature/maxAge",
                json!("1d"),
                "spec.signature.maxAge",
                "such as `90s`, `24h`",
            ),
            (
                "spec/signature/maxAge",
                json!("721h"),
                "spec.signature.maxAge",
                "from 1m to 720h",
            ),
            (
                "spec/signature",
                json!({ "maxAge": "4m" }),
                "spec.signature",
                "not longer than maxAge",
            ),
            (
                "spec/signature/ledgerSpan",
                json!("59s"),
                "spec.signature.ledgerSpan",
                "from 1m to 24h",
            ),
            (
                "spec/fetch/requestsPerSecond",
                json!(0),
                "spec.fetch.requestsPerSecond",
                "from 1 to 1000",
            ),
            (
                "spec/fetch/availabilityHorizonDays",
                json!(731),
                "spec.fetch.availabilityHorizonDays",
                "from 1 to 730",
            ),
            (
                "spec/fetch/removalGuard",
                json!("10"),
                "spec.fetch.removalGuard",
                "such as `10%`",
            ),
            (
                "spec/fetch/removalGuard",
                json!("101%"),
                "spec.fetch.removalGuard",
                "such as `10%`",
            ),
            (
                "spec/sinks",
                json!([{ "name": "a" }]),
                "spec.sinks[0]",
                "write `http:`",
            ),
            (
                "spec/sinks",
                sink(json!({})),
                "spec.sinks[0].http",
                "exactly one of `ref`",
            ),
            (
                "spec/sinks",
                sink(json!({ "uri": "https://x.example", "ref": { "name": "a" } })),
                "spec.sinks[0].http",
                "exactly one of `ref`",
            ),
            (
                "spec/sinks",
                sink(json!({ "uri": "https://u:p@x.example" })),
                "spec.sinks[0].http.uri",
                "headersFrom",
            ),
            (
                "spec/sinks",
                sink(json!({ "uri": "ftp://x.example" })),
                "spec.sinks[0].http.uri",
                "http:// or https://",
            ),
            (
                "spec/sinks",
                sink(json!({ "uri": "http://x.example", "caSecretRef": { "name": "ca" } })),
                "spec.sinks[0].http",
                "begins with https://",
            ),
            (
                "spec/sinks",
                sink(json!({ "ref": { "name": "a", "port": 65536 } })),
                "spec.sinks[0].http.ref.port",
                "from 1 to 65535",
            ),
            (
                "spec/sinks",
                sink(json!({ "ref": { "name": "a", "path": "events" } })),
                "spec.sinks[0].http.ref.path",
                "begins with `/`",
            ),
            (
                "spec/sinks",
                json!([{ "name": "feed", "http": to }]),
                "spec.sinks[0].name",
                "write another name",
            ),
            (
                "spec/sinks",
                json!([{ "name": "a", "http": to }, { "name": "a", "http": to }]),
                "spec.sinks[1].name",
                "its own name",
            ),
            (
                "spec/sinks",
                json!([{ "name": "a", "http": to, "types": ["Rate", "Rate"] }]),
                "spec.sinks[0].types",
                "write each once",
            ),
            (
                "spec/sinks",
                json!([{ "name": "a", "http": to, "delivery": { "retry": 101 } }]),
                "spec.sinks[0].delivery.retry",
                "from 0 to 100",
            ),
            (
                "spec/sinks",
                json!([{ "name": "a", "http": to, "delivery": { "timeout": "1ms" } }]),
                "spec.sinks[0].delivery.timeout",
                "from 100ms to 5m",
            ),
            (
                "spec/state/embedded/size",
                json!("63Mi"),
                "spec.state.embedded.size",
                "at least 64Mi",
            ),
            (
                "spec/state/embedded/size",
                json!("1GB"),
                "spec.state.embedded.size",
                "such as `1Gi`",
            ),
            (
                "spec/state/retention/bookings",
                json!("59m"),
                "spec.state.retention.bookings",
                "from 1h to 8760h",
            ),
            (
                "spec/receiver/replicas",
                json!(2),
                "spec.receiver.replicas",
                "write `replicas: 1`",
            ),
            (
                "spec/receiver/resources/requests",
                json!({ "cpu": "lots" }),
                "spec.receiver.resources.requests.cpu",
                "such as `100m`",
            ),
            (
                "spec/receiver/affinity",
                json!({ "nodeAffinity": 1 }),
                "spec.receiver.affinity",
                "not the affinity of a Pod",
            ),
            (
                "spec/receiver/tolerations",
                json!([{ "effect": "Never" }]),
                "spec.receiver.tolerations[0].effect",
                "NoExecute",
            ),
            (
                "spec/exposure",
                json!({ "ingress": {}, "httpRoute": { "parentRefs": [{ "name": "a" }] } }),
                "spec.exposure",
                "at most one",
            ),
            (
                "spec/exposure",
                json!({ "httpRoute": { "parentRefs": [] } }),
                "spec.exposure.httpRoute.parentRefs",
                "at least one Gateway",
            ),
            (
                "spec/registration/driftCheckInterval",
                json!("1s"),
                "spec.registration.driftCheckInterval",
                "from 1m to 24h",
            ),
        ];
        for (pointer, value, path, message) in cases {
            let found = validate(&object(pointer, value.clone()));
            assert_eq!(found.len(), 1, "{pointer} = {value}: {found:?}");
            assert_eq!(found[0].path, path, "{pointer} = {value}");
            assert!(
                found[0].message.contains(message),
                "{pointer} = {value}: {}",
                found[0]
            );
        }
    }

    #[test]
    fn what_cannot_change() {
        let old = object("spec/state/embedded/size", json!("2Gi"));
        let mut new = object("spec/environment", json!("production"));
        new.spec.state.embedded = object("spec/state/embedded/size", json!("1Gi"))
            .spec
            .state
            .embedded;
        let found = validate_change(&old, &new);
        let paths: Vec<&str> = found.iter().map(|mistake| mistake.path.as_str()).collect();
        assert_eq!(paths, ["spec.environment", "spec.state.embedded.size"]);
        assert_eq!(validate_change(&new, &new), []);
    }
}

/// The oracle of defaults is the table in the resource's design, written out here.
#[test]
fn the_smallest_subscription_becomes_complete_settings() {
    use bellhop::api::manifest::read_all;
    use bellhop::settings::{Resolved, Settings};

    let text = std::fs::read_to_string("examples/minimal.yaml").unwrap();
    let read = read_all([("f", text.as_bytes())]).unwrap();
    let resolved = Resolved::standalone("/secrets".into());
    let minimal = Settings::from_subscription(&read.subscriptions[0].object, &resolved).unwrap();
    assert_eq!(
        serde_json::to_value(&minimal).unwrap(),
        serde_json::json!({
            "subscription": {
                "namespace": "shop", "name": "redeam-sandbox",
                "uid": minimal.subscription.uid, "owner": minimal.subscription.owner,
                "environment": "sandbox"
            },
            "provider": {
                "registryUrl": "https://notifications.sandbox.redeam.io/registry/v1",
                "apiUrl": "https://booking.sandbox.redeam.io/v1.3"
            },
            "notifications": [
                { "type": "ChannelBinding", "operations": ["created", "updated", "removed"] },
                { "type": "Supplier", "operations": ["updated"] },
                { "type": "Product", "operations": ["updated"] },
                { "type": "Rate", "operations": ["updated"] },
                { "type": "Availability", "operations": [] },
                { "type": "PriceSchedule", "operations": [] },
                { "type": "Booking", "operations": ["updated"] }
            ],
            "signature": {
                "scheme": "Auto", "maxAge": 86_400_000, "maxSkew": 300_000, "ledgerSpan": 3_600_000
            },
            "fetch": {
                "requestsPerSecond": 10, "minInterval": 1_000, "availabilityHorizonDays": 90,
                "resyncInterval": 86_400_000, "removalConfirmation": 30_000,
                "removalGuardPercent": 10
            },
            "sinks": [],
            "feed": { "tokenFile": null },
            "store": {
                "sizeBytes": 1_073_741_824, "retainEvents": 604_800_000,
                "retainDeadLetters": 2_592_000_000_u64, "retainBookings": 2_592_000_000_u64
            }
        })
    );
    // The file that spells all defaults differs only in its sink.
    let text = std::fs::read_to_string("examples/variants/full.yaml").unwrap();
    let read = read_all([("f", text.as_bytes())]).unwrap();
    let mut full = Settings::from_subscription(&read.subscriptions[0].object, &resolved).unwrap();
    assert_eq!(full.sinks[0].uri, "http://orders.shop.svc:8080/events");
    full.sinks.clear();
    assert_eq!(full, minimal);
}

/// What a structural schema must be, by Kubernetes' documentation of CustomResourceDefinitions.
#[test]
fn the_schema_is_structural_and_bounded() {
    use serde_json::Value;

    fn walk(path: &str, schema: &Value, wrong: &mut Vec<String>) {
        let object = schema.as_object().unwrap();
        let has = |key: &str| object.contains_key(key);
        let mut check = |right: bool, what: &str| {
            if !right {
                wrong.push(format!("{path}: {what}"));
            }
        };
        for key in [
            "$ref",
            "oneOf",
            "allOf",
            "not",
            "nullable",
            "uniqueItems",
            "definitions",
            "const",
        ] {
            check(!has(key), key);
        }
        let int_or_string = has("x-kubernetes-int-or-string");
        check(has("type") != int_or_string, "type");
        check(has("anyOf") == int_or_string, "anyOf");
        match schema["type"].as_str().unwrap_or_default() {
            "string" => check(has("maxLength") || has("enum"), "a string without a limit"),
            "array" => {
                check(has("maxItems"), "a list without a limit");
                check(has("x-kubernetes-list-type"), "a list without its type");
            }
            "object" => {
                let open =
                    has("additionalProperties") || has("x-kubernetes-preserve-unknown-fields");
                check(!open || has("maxProperties"), "a map without a limit");
                check(
                    !has("additionalProperties") || !has("properties"),
                    "both kinds of fields",
                );
            }
            _ => {}
        }
        let default = &schema["default"];
        check(
            path == ".status" || !(default.is_object() || default.is_array()),
            "default of a union",
        );
        for rule in schema["x-kubernetes-validations"]
            .as_array()
            .into_iter()
            .flatten()
        {
            let words = rule["message"].as_str().unwrap_or_default();
            check(
                words.len() > 10 && rule["rule"].is_string(),
                "a rule without words",
            );
            check(!words.contains('\n'), "a message of several lines");
        }
        for (name, field) in schema["properties"].as_object().into_iter().flatten() {
            let described = field["description"]
                .as_str()
                .is_some_and(|text| text.ends_with(['.', '`', ')']));
            if !described {
                wrong.push(format!("{path}.{name}: no description"));
            }
            walk(&format!("{path}.{name}"), field, wrong);
        }
        for key in ["items", "additionalProperties"] {
            if let Some(inner) = schema.get(key) {
                walk(&format!("{path}[]"), inner, wrong);
            }
        }
    }

    let text = std::fs::read_to_string("crds/bellhop.dev_webhooksubscriptions.yaml").unwrap();
    let crd: Value = serde_saphyr::from_str(&text).unwrap();
    assert_eq!(crd["metadata"]["name"], "webhooksubscriptions.bellhop.dev");
    assert_eq!(crd["spec"]["names"]["shortNames"][0], "whs");
    let version = &crd["spec"]["versions"][0];
    assert!(version["subresources"]["status"].is_object());
    let columns: Vec<&str> = version["additionalPrinterColumns"]
        .as_array()
        .unwrap()
        .iter()
        .map(|column| column["name"].as_str().unwrap())
        .collect();
    let expected = "Environment,Ready,Reason,Registered,Backlog,Last notification,Age";
    assert_eq!(columns.join(","), expected);
    let schema = &version["schema"]["openAPIV3Schema"];
    assert_eq!(
        schema["properties"]["status"]["default"]["observedGeneration"],
        -1
    );
    let state = schema["properties"]["spec"]["properties"]["state"]["properties"]
        .as_object()
        .unwrap();
    assert_eq!(state.keys().collect::<Vec<_>>(), ["embedded", "retention"]);
    let mut wrong = Vec::new();
    walk("", schema, &mut wrong);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

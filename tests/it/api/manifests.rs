//! What is read from a file of manifests, and what its errors name.

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

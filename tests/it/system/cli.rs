//! The command line as a person meets it: what is wrong, where, and what to write instead.

use std::net::TcpListener;

use super::rig::{ALL, Finished, World, bellhop, finished, manifest, provider};

/// A folder with a file of this content, and its path as an argument.
fn file(name: &str, content: &str) -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    std::fs::write(&path, content).unwrap();
    let path = path.display().to_string();
    (folder, path)
}

/// One line on stderr, exit code 2, nothing on stdout.
fn refused(ended: &Finished, parts: &[&str]) {
    assert_eq!(ended.code, Some(2), "{}", ended.err);
    assert_eq!(ended.out, "");
    for part in parts {
        assert!(
            ended.err.contains(part),
            "`{part}` is not in: {}",
            ended.err
        );
    }
}

#[test]
fn a_bad_file_lists_all_its_mistakes_with_place_and_way_out() {
    let text = "apiVersion: bellhop.dev/v1alpha1
kind: WebhookSubscription
metadata: { name: Shop_X, namespace: default }
spec:
  environment: staging
  url: http://hooks.example.com/redeam
  credentialsSecretRef: { name: redeam-keys }
  notification: []
  notifications:
    - type: Bookings
    - type: Supplier
      operations: [created]
  fetch: { requestsPerSecond: 0, minInterval: 5 minutes }
  sinks:
    - name: a
    - name: a
      http: { uri: \"ftp://x\" }
---
apiVersion: v1
kind: Secret
metadata: { name: redeam-keys, namespace: default }
stringData: { apiKey: \"\", apiSecert: x }
";
    let (_folder, path) = file("shop.yaml", text);
    // Place, field, and what to write: by hand from the text above.
    let expected = [
        ("3:19", "metadata.name", "lowercase letters"),
        ("5:16", "spec.environment", "production and sandbox"),
        ("6:8", "spec.url", "https"),
        ("8:3", "spec.notification", "did you mean `notifications`?"),
        ("10:13", "spec.notifications[0].type", "write `Booking`"),
        (
            "12:19",
            "spec.notifications[1].operations",
            "`operations: [updated]`",
        ),
        ("13:31", "spec.fetch.requestsPerSecond", "from 1 to 1000"),
        ("13:47", "spec.fetch.minInterval", "`90s`"),
        ("15:7", "spec.sinks[0]", "write `http:`"),
        ("16:13", "spec.sinks[1].name", "its own name"),
        ("17:20", "spec.sinks[1].http.uri", "http://"),
        (
            "7:33",
            "has nothing in its key `apiKey`",
            "has `apiSecert`, but no key `apiSecret`",
        ),
    ];
    for command in ["run", "check"] {
        let ended = finished(&[command, "-f", &path]);
        refused(&ended, &["mistakes in the manifests"]);
        for (place, field, way_out) in expected {
            let found = ended.err.lines().any(|line| {
                line.starts_with(&format!("{path}:{place}"))
                    && line.contains(field)
                    && line.contains(way_out)
            });
            assert!(found, "{place} {field} {way_out}: {}", ended.err);
        }
        assert_eq!(
            ended.err.lines().count(),
            expected.len() + 1,
            "{}",
            ended.err
        );
    }
}

#[test]
fn a_file_that_is_none() {
    let (folder, empty) = file("empty.yaml", "");
    let missing = folder.path().join("missing.yaml").display().to_string();
    let directory = folder.path().display().to_string();
    let (_other, broken) = file("broken.yaml", "a: [1\n  b");
    let (_third, no_secret) = file("shop.yaml", manifest("").split("---").next().unwrap());
    let one = manifest("");
    let twice = one.clone() + "---\n" + &one.split("---").next().unwrap().replace("shop", "other");
    let (_fourth, twice) = file("twice.yaml", &twice);
    for (path, parts) in [
        (&missing, ["No such file", "examples/"]),
        (&directory, ["Is a directory", "examples/"]),
        (&empty, ["no document in it", "WebhookSubscription"]),
        (&broken, ["broken.yaml:1:4", "not YAML"]),
        (
            &no_secret,
            ["no Secret `redeam-keys`", "apiKey and apiSecret"],
        ),
    ] {
        for command in ["run", "check"] {
            refused(&finished(&[command, "-f", path]), &parts);
        }
    }
    refused(
        &finished(&["run", "-f", &twice]),
        &[
            "2 WebhookSubscriptions",
            "shop, other",
            "one process for each",
        ],
    );
    // All of several files at once.
    let both = finished(&["run", "-f", &missing, "-f", &directory]);
    refused(&both, &["missing.yaml", "Is a directory"]);
}

#[test]
fn wrong_flags_are_refused_before_anything_is_begun() {
    let (folder, good) = file("shop.yaml", &manifest(""));
    let absent = folder.path().join("absent").display().to_string();
    let data = folder.path().join("data").display().to_string();
    let cases: &[(&[&str], &[&str])] = &[
        (&["--nope"], &["--nope", "--help"]),
        (
            &["--public-listen", "8080"],
            &["--public-listen", "0.0.0.0:8080"],
        ),
        (
            &["--feed-listen", "0.0.0.0:0"],
            &["--feed-listen", "--feed-token-file"],
        ),
        (&["--feed-token-file", &absent], &["absent", "at least 16"]),
        (
            &["--registry-url", "http://example.com/r"],
            &["--registry-url", "https", "--allow-plain-http"],
        ),
        (
            &["--api-url", "nonsense"],
            &["--api-url", "https://host/path"],
        ),
        (&["--tls-cert", &absent], &["--tls-key"]),
        (
            &["--tls-cert", &absent, "--tls-key", &absent],
            &["--tls-cert", "absent", "No such file"],
        ),
        (&["--drain-seconds", "soon"], &["--drain-seconds"]),
        (&["--log", "bellhop=loud=very"], &["--log", "bellhop=debug"]),
    ];
    for (flags, parts) in cases {
        let mut arguments = vec!["run", "-f", &good, "--data-dir", &data];
        arguments.extend_from_slice(flags);
        refused(&finished(&arguments), parts);
        assert!(
            !std::path::Path::new(&data).exists(),
            "{flags:?} left something"
        );
    }
    refused(&finished(&["bogus"]), &["bogus"]);
    refused(&finished(&["run"]), &["--file"]);
    assert_eq!(finished(&[]).code, Some(2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_taken_port_is_named_with_its_flag() {
    let world = World::new(provider()).await;
    std::fs::write(world.manifest_file(), manifest("")).unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for flag in ["--public-listen", "--admin-listen", "--feed-listen"] {
        let mut command = bellhop();
        command.arg("run").arg("-f").arg(world.manifest_file());
        for other in ["--public-listen", "--admin-listen", "--feed-listen"] {
            command.args([
                other,
                if other == flag {
                    &address
                } else {
                    "127.0.0.1:0"
                },
            ]);
        }
        command.arg("--data-dir").arg(world.data_dir());
        let ended = Finished::of(command);
        assert_eq!(ended.code, Some(1), "{}", ended.err);
        assert!(
            ended.err.contains(&address) && ended.err.contains(flag),
            "{}",
            ended.err
        );
        assert!(!world.data_dir().exists(), "the port comes first");
    }
}

#[test]
fn every_command_explains_itself() {
    for command in ["demo", "run", "simulate", "check", "crd"] {
        let ended = finished(&[command, "--help"]);
        assert_eq!(ended.code, Some(0));
        let (about, options) = ended.out.split_once("Options:").unwrap();
        let (about, _usage) = about.split_once("Usage:").unwrap();
        assert!(
            about.lines().count() >= 3,
            "{command} only names itself: {about}"
        );
        // Each flag can come from the environment, and says so.
        let flags = options.lines().filter(|line| {
            let line = line.trim_start();
            line.starts_with("--") || (line.starts_with('-') && line.contains(", --"))
        });
        for flag in flags {
            let name = flag
                .split_whitespace()
                .find(|word| word.starts_with("--"))
                .unwrap();
            let name = name.trim_end_matches(',');
            if ["--help", "--version"].contains(&name) {
                continue;
            }
            let variable = name[2..].replace('-', "_").to_uppercase();
            let wanted = format!("[env: BELLHOP_{variable}=");
            assert!(options.contains(&wanted), "{command} {name}: no {wanted}");
        }
    }
    let top = finished(&["--help"]);
    for word in [
        "demo",
        "run",
        "simulate",
        "check",
        "crd",
        "Exit codes",
        "BELLHOP_",
    ] {
        assert!(top.out.contains(word), "{word}");
    }
    for command in ["run", "check"] {
        let help = finished(&[command, "--help"]).out;
        assert!(
            help.contains("examples/minimal.yaml"),
            "{command} has no example"
        );
    }
    let simulate = finished(&["simulate", "--help"]).out;
    assert!(simulate.contains("duplicate\n") && simulate.contains("/control"));
}

/// A switch is turned on by what people write into environments, and by nothing else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flags_come_from_the_environment() {
    let world = World::new(provider()).await;
    let deregister = |value: &str| {
        let mut command = world.command();
        command.env("BELLHOP_DEREGISTER", value);
        Finished::of(command)
    };
    std::fs::write(world.manifest_file(), manifest("")).unwrap();
    for value in ["true", "1", "yes", "on"] {
        let ended = deregister(value);
        assert_eq!(ended.code, Some(0), "{value}: {}", ended.err);
        assert!(
            ended
                .out
                .contains("all rules of this subscription are gone")
        );
    }
    refused(&deregister("perhaps"), &["perhaps", "--deregister"]);
    let mut command = bellhop();
    command.arg("check");
    command.env("BELLHOP_FILE", world.manifest_file());
    command.env("BELLHOP_REGISTRY_URL", "nonsense");
    refused(&Finished::of(command), &["--registry-url"]);
}

#[test]
fn the_crd_is_the_one_in_the_tree() {
    let ended = finished(&["crd"]);
    assert_eq!((ended.code, ended.err.as_str()), (Some(0), ""));
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let kept = root.join("crds/bellhop.dev_webhooksubscriptions.yaml");
    assert_eq!(
        ended.out,
        std::fs::read_to_string(kept).unwrap(),
        "run `make crds`"
    );
    let reference = finished(&["crd", "--reference"]);
    let kept = root.join("docs/resource.md");
    assert_eq!(reference.out, std::fs::read_to_string(kept).unwrap());
}

/// Against the simulator: a line per check, the next step with each that is not well, exit codes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn check_is_a_line_for_each_thing() {
    let world = World::new(provider()).await;
    // An address that resolves here without asking anyone.
    let text = manifest(ALL).replace("hooks.example.com", "203.0.114.9");
    std::fs::write(world.manifest_file(), &text).unwrap();
    let file = world.manifest_file().display().to_string();
    let check = |registry: &str| {
        finished(&[
            "check",
            "-f",
            &file,
            "--registry-url",
            registry,
            "--api-url",
            &world.simulator.api_url(),
        ])
    };
    let well = check(&world.simulator.registry_url());
    assert_eq!(well.code, Some(0), "{}{}", well.out, well.err);
    assert_eq!(well.err, "");
    let whats: Vec<&str> = well.out.lines().map(|line| line[6..26].trim()).collect();
    let mut expected = vec!["manifest", "public url", "registry credentials"];
    let rules: Vec<String> = [
        "ChannelBinding",
        "Supplier",
        "Product",
        "Rate",
        "Availability",
        "PriceSchedule",
        "Booking",
    ]
    .map(|kind| format!("rule {kind}"))
    .to_vec();
    expected.extend(rules.iter().map(String::as_str));
    expected.extend(["reseller credentials", "clock"]);
    assert_eq!(whats, expected);
    assert!(
        well.out.lines().all(|line| line.starts_with("ok    ")),
        "{}",
        well.out
    );
    assert_eq!(world.control.rules().len(), 0, "check wrote");

    // Nobody there: the cause once, not once per rule.
    let down = check("http://127.0.0.1:1/registry/v1");
    assert_eq!(down.code, Some(1));
    let failed: Vec<&str> = down
        .out
        .lines()
        .filter(|line| line.starts_with("fail"))
        .collect();
    assert_eq!(failed.len(), 1, "{}", down.out);
    assert!(
        failed[0].contains("registry") && failed[0].contains("refused"),
        "{}",
        down.out
    );

    std::fs::write(world.manifest_file(), text.replace("demo-secret", "wrong")).unwrap();
    let refused = check(&world.simulator.registry_url());
    assert_eq!(refused.code, Some(1));
    for line in ["registry credentials", "reseller credentials"] {
        let line = refused
            .out
            .lines()
            .find(|shown| shown.contains(line))
            .unwrap();
        assert!(
            line.starts_with("fail") && line.contains("401") && line.contains("Secret"),
            "{line}"
        );
    }
    for secret in ["demo-key", "wrong"] {
        assert!(!refused.out.contains(secret) && !refused.err.contains(secret));
    }
}

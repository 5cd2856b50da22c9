//! A life of `bellhop run`: start, rules, signals, end. Oracle: the simulator's rules and its
//! record of requests; exit codes.

use std::time::{Duration, Instant};

use bellhop::simulator::Control;
use serde_json::{Value, json};

use super::rig::{ALL, Consumer, Finished, Program, World, eventually, http, manifest, provider};

/// Calls that the simulator got at its registry and that would write.
fn writes(control: &Control) -> Vec<String> {
    control
        .requests(0, usize::MAX)
        .into_iter()
        .filter(|request| request.method != "GET")
        .map(|request| format!("{} {}", request.method, request.target))
        .collect()
}

fn rules(control: &Control) -> serde_json::Map<String, Value> {
    let rules = control.rules().into_iter();
    rules
        .map(|(kind, rule)| (kind.name().to_owned(), rule))
        .collect()
}

/// Someone else, with the same keys, makes or changes a rule at the registry.
async fn put_rule(world: &World, segment: &str, body: &Value, new: bool) {
    let url = format!("{}/{segment}", world.simulator.registry_url());
    let http = http();
    let request = if new { http.post(url) } else { http.put(url) };
    let answer = request
        .header("x-api-key", "demo-key")
        .header("x-api-secret", "demo-secret")
        .header("content-type", "application/json")
        .body(body.to_string())
        .send()
        .await
        .unwrap();
    assert!(answer.status().is_success(), "{:?}", answer.text().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_and_ctrl_c_end_it_cleanly_and_the_rules_stay() {
    let world = World::new(provider()).await;
    let program = world.start(ALL).await;
    program.settled().await;
    let made = rules(&world.control);
    assert_eq!(made.len(), 7);
    program.stop().await;

    let program = world.start(ALL).await;
    program.settled().await;
    program.signal("-INT");
    let (status, log) = program.ended().await;
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(log.contains("shutting down"));
    assert_eq!(
        rules(&world.control),
        made,
        "neither end nor start touches a rule"
    );
}

/// A request that never ends keeps the drain waiting: until its deadline, or until a second Ctrl-C.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_drain_has_a_deadline_and_a_second_signal_does_not_wait_for_it() {
    use tokio::io::AsyncWriteExt;
    for (drain, second, least, most) in [("2", false, 2, 20), ("50", true, 0, 25)] {
        let world = World::new(provider()).await;
        let program = world
            .start_with("", |command| {
                command.args(["--drain-seconds", drain]);
            })
            .await;
        program.settled().await;
        let mut slow = tokio::net::TcpStream::connect(&program.public)
            .await
            .unwrap();
        // A body that goes on coming, a byte at a time, for as long as the program reads it.
        let head = b"POST /redeam/booking HTTP/1.1\r\nhost: x\r\ncontent-length: 60000\r\n\r\n";
        slow.write_all(head).await.unwrap();
        let sending = tokio::spawn(async move {
            while slow.write_all(b" ").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        });
        let begun = Instant::now();
        program.signal("-INT");
        eventually("it heard", async || program.logged("shutting down")).await;
        if second {
            program.signal("-INT");
        }
        let (status, log) = program.ended().await;
        let took = begun.elapsed().as_secs();
        sending.abort();
        assert_eq!(status.code(), Some(0), "{log}");
        assert!(
            (least..most).contains(&took),
            "{took} s with --drain-seconds {drain}"
        );
    }
}

/// Ready means that notifications are taken: one type whose rule is somebody else's does not take
/// the others out of service.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_blocked_type_is_told_and_the_others_are_served() {
    let world = World::new(provider()).await;
    let foreign = json!({ "url": "https://theirs.example.com/hook", "disabled": false,
        "config": { "operations": ["updated"] } });
    put_rule(&world, "suppliers", &foreign, true).await;
    let spec = "notifications: [{ type: Supplier }, { type: Rate }]";
    let program = world.start(spec).await;
    eventually("the other is live", async || {
        (program.status().await["registered"] == "1/2").then_some(())
    })
    .await;
    let ready = format!("http://{}/readyz", program.admin);
    assert_eq!(program.get(&ready).await.unwrap().0, 200);
    program
        .until_condition("Registered", "False", "RuleOwnedElsewhere")
        .await;
    program
        .until_condition("ReceiverAvailable", "True", "ReceiverReady")
        .await;
    program
        .until_condition("Ready", "False", "RuleOwnedElsewhere")
        .await;
    let rate = world.keys("rate/")[0].clone();
    world.change(&rate);
    let mut consumer = Consumer::default();
    eventually("the change of a rate arrives", async || {
        consumer.catch_up(&program).await;
        let truth = world.truth(&["Rate".to_owned()]);
        (consumer.data(&rate) == truth.get(&rate)).then_some(())
    })
    .await;
    program.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deregister_removes_our_rules_and_no_other() {
    let world = World::new(provider()).await;
    let foreign = json!({ "url": "https://theirs.example.com/hook", "disabled": false,
        "config": { "operations": ["updated"] } });
    put_rule(&world, "suppliers", &foreign, true).await;
    let before = rules(&world.control)["supplier"].clone();
    let program = world.start(ALL).await;
    program
        .until_condition("Registered", "False", "RuleOwnedElsewhere")
        .await;
    eventually("the others are live", async || {
        let status = program.status().await;
        (status["registered"] == "6/7").then_some(())
    })
    .await;
    let status = program.status().await;
    let rule = &status["rules"]["Supplier"];
    assert_eq!(rule["reason"], "RuleOwnedElsewhere");
    assert!(
        rule["message"].as_str().unwrap().contains("adoption"),
        "{rule}"
    );
    assert_eq!(rules(&world.control)["supplier"], before);
    program.stop().await;

    let mut command = world.command();
    command.arg("--deregister");
    let ended = Finished::of(command);
    assert_eq!(ended.code, Some(0), "{}{}", ended.out, ended.err);
    let left = rules(&world.control);
    assert_eq!(left.keys().collect::<Vec<_>>(), ["supplier"]);
    assert_eq!(left["supplier"], before);
    let keys = world.data_dir().join("keys");
    assert_eq!(
        std::fs::read_dir(keys).unwrap().count(),
        0,
        "no key outlives its rule"
    );
    // Once more: nothing left to do is not a failure.
    let mut command = world.command();
    command.arg("--deregister");
    assert_eq!(Finished::of(command).code, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn observe_writes_nothing_and_says_what_it_would_do() {
    let world = World::new(provider()).await;
    let program = world.start("registration: { mode: Observe }").await;
    program
        .until_condition("Registered", "False", "ObserveOnly")
        .await;
    let status = program.status().await;
    for rule in status["rules"].as_object().unwrap().values() {
        assert!(
            rule["message"].as_str().unwrap().contains("create"),
            "{rule}"
        );
    }
    program.stop().await;
    assert_eq!(writes(&world.control), Vec::<String>::new());
    assert_eq!(rules(&world.control).len(), 0);
}

/// Somebody turns knobs at the provider: URL, disabled, config. The next check mends them, and the
/// types whose rule was not live are read again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn drift_is_mended() {
    let world = World::new(provider()).await;
    let program = world
        .start(&format!(
            "{ALL}\nregistration: {{ driftCheckInterval: 1m }}"
        ))
        .await;
    program.settled().await;
    let made = rules(&world.control);
    program.stop().await;
    let config = |kind: &str| made[kind]["config"].clone();
    let url = |kind: &str| made[kind]["url"].clone();
    put_rule(
        &world,
        "bookings",
        &json!({ "url": url("booking"), "disabled": true,
        "config": config("booking") }),
        false,
    )
    .await;
    // A filter that somebody set beside ours is not ours to take away.
    let fewer = json!({ "operations": ["created"], "supplierIDs": ["theirs"] });
    put_rule(
        &world,
        "channelbindings",
        &json!({ "url": url("channel-binding"), "disabled": false, "config": fewer }),
        false,
    )
    .await;
    let moved = url("product")
        .as_str()
        .unwrap()
        .replace("hooks", "elsewhere");
    put_rule(
        &world,
        "products",
        &json!({ "url": moved, "disabled": false,
        "config": config("product") }),
        false,
    )
    .await;
    // Changed while nobody is told: only the resync that a mended rule owes can find it.
    let product = world.keys("product/")[0].clone();
    world
        .control
        .change(&product, &serde_json::Map::new(), false)
        .unwrap();
    let program = world
        .start(&format!(
            "{ALL}\nregistration: {{ driftCheckInterval: 1m }}"
        ))
        .await;
    program.settled().await;
    let mended = rules(&world.control);
    assert_eq!(
        mended["channel-binding"]["config"],
        json!({ "operations": ["created", "updated", "removed"], "supplierIDs": ["theirs"] })
    );
    for kind in ["booking", "product"] {
        for field in ["url", "disabled", "config"] {
            assert_eq!(mended[kind][field], made[kind][field], "{kind} {field}");
        }
    }
    let mut consumer = Consumer::default();
    world.equal(&program, &mut consumer).await;
    program.stop().await;
}

/// By hand: the simulator as a process, steered over HTTP, delivering to a receiver over http.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_simulator_by_hand() {
    use std::io::{BufRead, BufReader};
    let receiver = World::new(provider()).await;
    let mut command = super::rig::bellhop();
    command
        .args([
            "simulate",
            "--listen",
            "127.0.0.1:0",
            "--seed",
            "7",
            "--suppliers",
            "1",
        ])
        .args(["--products", "1", "--rates", "1", "--bookings", "1"])
        .args(["--retry-delays-ms", "100,100,100", "--fault", "sign=md5-a"])
        .args(["--deliver-to", "http://127.0.0.1:1"])
        .stdout(std::process::Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut said = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut said = |what: &str| loop {
        let line = said.next().unwrap().unwrap();
        if let Some(url) = line.trim().strip_prefix(what) {
            return url.trim().to_owned();
        }
    };
    let (registry, api) = (said("registry"), said("reseller API"));
    let control = said("control API").replace("/status", "");
    let http = http();
    let send = async |method: &str, path: &str, body: &str| -> Value {
        let method = method.parse().unwrap();
        let request = http.request(method, format!("{control}{path}"));
        let answer = request.body(body.to_owned()).send().await.unwrap();
        assert!(answer.status().is_success(), "{path}: {}", answer.status());
        serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap()
    };
    std::fs::write(receiver.manifest_file(), manifest("")).unwrap();
    let program = Program::start(receiver.command_for(&registry, &api), http.clone()).await;
    program.settled().await;
    let to = json!({ "url": format!("http://{}", program.public) });
    send("PUT", "/deliver-to", &to.to_string()).await;
    let booking = send("GET", "/entities?prefix=booking/", "").await[0]
        .as_str()
        .unwrap()
        .to_owned();
    send(
        "PATCH",
        &format!("/entities/{booking}"),
        r#"{"status":"CANCELLED"}"#,
    )
    .await;
    let mut consumer = Consumer::default();
    eventually("the change arrives", async || {
        consumer.catch_up(&program).await;
        (consumer.data(&booking)?["status"] == "CANCELLED").then_some(())
    })
    .await;
    let truth = send("GET", &format!("/truth/{booking}"), "").await;
    assert_eq!(consumer.data(&booking), Some(&truth));
    let deliveries = send("GET", "/deliveries", "").await;
    assert_eq!(deliveries["deliveries"].as_array().unwrap().len(), 1);
    let weak = program.condition("WeakSignature").await;
    assert_eq!(weak.unwrap().0, "True", "MD5 is in use, and that is said");
    send("PATCH", "/faults", r#"{"sign":"hmac-sha256"}"#).await;
    send("DELETE", &format!("/entities/{booking}"), "").await;
    program.stop().await;
    let _ = child.kill();
    let _ = child.wait();
}

/// `--tls-cert` and `--tls-key`: the provider delivers over TLS, and goes on when the files change.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_by_flags_with_reload() {
    let authority = Authority::new();
    let world = World::new(bellhop::simulator::Config {
        extra_ca: Some(authority.pem.clone().into_bytes()),
        ..provider()
    })
    .await;
    let (cert, key) = (
        world.folder.path().join("tls.crt"),
        world.folder.path().join("tls.key"),
    );
    let write = |(chain, private): (String, String)| {
        std::fs::write(&key, private).unwrap();
        std::fs::write(&cert, chain).unwrap();
    };
    write(authority.issue("127.0.0.1"));
    let program = world
        .start_with("", |command| {
            command
                .arg("--tls-cert")
                .arg(&cert)
                .arg("--tls-key")
                .arg(&key);
        })
        .await;
    let public = format!("https://{}", program.public);
    world.control.deliver_to(Some(public)).unwrap();
    program.settled().await;
    let booking = world.keys("booking/")[0].clone();
    let mut consumer = Consumer::default();
    let mut arrives = async |times: u64| {
        world.change(&booking);
        let truth = world
            .control
            .truth(&booking, bellhop::simulator::Days::from_today(1));
        eventually("the change arrives", async || {
            consumer.catch_up(&program).await;
            (consumer.data(&booking) == truth.as_ref()).then_some(())
        })
        .await;
        let accepted = program
            .metric("bellhop_receiver_requests_total{type=\"Booking\",answer=\"accepted\"}")
            .await;
        assert!(accepted >= times);
    };
    arrives(1).await;
    write(authority.issue("127.0.0.1"));
    eventually("the certificate is taken over", async || {
        program.logged("certificate reloaded")
    })
    .await;
    arrives(2).await;
    // A broken pair is told, and the one in use stays.
    std::fs::write(&cert, "no certificate").unwrap();
    eventually("the broken one is told", async || {
        program.logged("cannot use the changed certificate; keeping the old one")
    })
    .await;
    arrives(3).await;
    let plain = http()
        .get(format!("http://{}/", program.public))
        .send()
        .await;
    assert!(plain.is_err(), "plain HTTP on a TLS port");
    program.stop().await;
}

/// A certificate authority of this test.
struct Authority {
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
    pem: String,
}

impl Authority {
    fn new() -> Self {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        Self {
            issuer: rcgen::Issuer::new(params, key),
            pem,
        }
    }

    /// Chain and private key, in PEM.
    fn issue(&self, host: &str) -> (String, String) {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec![host.to_owned()]).unwrap();
        let leaf = params.signed_by(&key, &self.issuer).unwrap();
        (leaf.pem(), key.serialize_pem())
    }
}

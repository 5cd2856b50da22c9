//! What changes while it runs: keys, resyncs, certificates, settings.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_key_is_in_use_within_five_seconds() {
    let pod = Pod::new().await;
    let key = pod.register().await;
    pod.keys.set([("rate", Some(&format!("{key}\n")))]);
    let program = pod.start().await;
    assert_eq!(loaded(&program).await, [fingerprint(&key)]);
    let new = pod.world.control.rotate_key(Kind::Rate).unwrap();
    let begun = Instant::now();
    // As the operator writes it: the one before stays for a while.
    pod.keys.set([("rate", Some(&format!("{new}\n{key}\n")))]);
    let both = vec![fingerprint(&new), fingerprint(&key)];
    eventually("the new key is loaded", async || {
        (loaded(&program).await == both).then_some(())
    })
    .await;
    let took = begun.elapsed();
    println!("from the swap to the key in use: {took:?}");
    assert!(took < Duration::from_secs(5), "{took:?}");
    let rate = pod.rate();
    pod.world.change(&rate);
    until_held(&pod, &program, &mut Consumer::default(), &rate).await;
    let refused = pod.world.control.delivery_counts();
    println!("{refused:?}");
    program.stop().await;
}

/// A receiver after the first full comparison of its new store, a consumer that has followed, and a
/// rate.
async fn compared(pod: &Pod) -> (Program, Consumer, String) {
    let program = pod.start().await;
    let mut consumer = Consumer::default();
    let rate = pod.rate();
    until_held(pod, &program, &mut consumer, &rate).await;
    at_rest(&program).await;
    (program, consumer, rate)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_resync_is_done_when_its_number_changes_and_once() {
    let pod = Pod::new().await;
    let key = pod.register().await;
    pod.keys.set([("rate", Some(&format!("{key}\n")))]);
    let (program, mut consumer, rate) = compared(&pod).await;
    silently(&pod, &rate);
    pod.keys.set([("resyncs", Some(r#"{"Rate":1}"#))]);
    until_held(&pod, &program, &mut consumer, &rate).await;
    at_rest(&program).await;
    program.stop().await;

    // What was done is remembered: nothing is listed after the restart.
    let before = requests(&pod).len();
    let program = pod.start().await;
    pod.world.change(&rate);
    until_held(&pod, &program, &mut consumer, &rate).await;
    let since = requests(&pod).split_off(before);
    assert!(since.iter().all(|one| is_read_of(one, &rate)), "{since:?}");
    // Another number: also one of a count that began anew.
    for number in ["7", "1"] {
        silently(&pod, &rate);
        let numbers = format!(r#"{{"Rate":{number}}}"#);
        pod.keys.set([("resyncs", Some(&numbers))]);
        until_held(&pod, &program, &mut consumer, &rate).await;
        at_rest(&program).await;
    }
    program.stop().await;
}

#[tokio::test]
async fn a_resync_can_be_asked_for_by_hand() {
    let pod = Pod::new().await;
    let (program, mut consumer, rate) = compared(&pod).await;
    silently(&pod, &rate);
    let (status, answer) = program.post("/resync").await;
    assert_eq!(status, StatusCode::ACCEPTED, "{answer}");
    until_held(&pod, &program, &mut consumer, &rate).await;
    program.stop().await;
}

/// The certificate of the public port, exchanged under it as a Secret is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_certificate_is_taken_over() {
    let pod = Pod::new().await;
    let tls = Mounted::new(pod.world.folder.path().join("tls"));
    let authorities = [Authority::new(), Authority::new()];
    let [first, second] = authorities
        .each_ref()
        .map(|authority| authority.issue("localhost", 2020, 2099));
    tls.set([
        ("tls.crt", Some(&first.pem.0)),
        ("tls.key", Some(&first.pem.1)),
    ]);
    let mut config = pod.config.clone();
    config.process.tls_dir = Some(tls.folder.clone());
    pod.tell(&config);
    let program = Program::start(pod.command(), http()).await;
    let port = program.public.rsplit(':').next().unwrap().to_owned();
    let ask = async |authority: &Authority| {
        let trusted = reqwest::Certificate::from_pem(authority.pem().as_bytes()).unwrap();
        let client = reqwest::Client::builder()
            .no_proxy()
            .tls_certs_only([trusted]);
        let client = client.build().unwrap();
        let answer = client
            .get(format!("https://localhost:{port}/none/of/ours"))
            .send()
            .await;
        answer.ok().map(|answer| answer.status().as_u16())
    };
    assert_eq!(ask(&authorities[0]).await, Some(404));
    assert_eq!(ask(&authorities[1]).await, None);
    tls.set([
        ("tls.crt", Some(&second.pem.0)),
        ("tls.key", Some(&second.pem.1)),
    ]);
    eventually("the other certificate is served", async || {
        ask(&authorities[1]).await
    })
    .await;
    assert_eq!(ask(&authorities[0]).await, None);
    program.stop().await;
}

/// As while its pod waits to be replaced by one that mounts them.
#[tokio::test]
async fn settings_whose_files_are_not_there_are_not_taken_over() {
    let pod = Pod::new().await;
    let program = pod.start().await;
    let root = pod.world.folder.path();
    let (tls, token) = (Mounted::new(root.join("tls")), root.join("feed-token"));
    let mut config = pod.config.clone();
    config.process.tls_dir = Some(tls.folder.clone());
    config.settings.feed.token_file = Some(token.clone());
    pod.tell(&config);
    let told = |what: &str| {
        let log = program.log();
        let lines = log
            .lines()
            .filter(|line| line.contains("the settings in use stay"));
        lines.filter(|line| line.contains(what)).count()
    };
    eventually("it is told", async || (told("tls.crt") == 1).then_some(())).await;
    let feed = format!("http://{}/v1/entities", program.feed);
    assert_eq!(program.get(&feed).await.unwrap().0, StatusCode::OK);
    let authority = Authority::new();
    let issued = authority.issue("localhost", 2020, 2099);
    tls.set([
        ("tls.crt", Some(&issued.pem.0)),
        ("tls.key", Some(&issued.pem.1)),
    ]);
    eventually("so is the next", async || {
        (told("feed-token") == 1).then_some(())
    })
    .await;
    assert_eq!(told(""), 2, "each once");
    assert_eq!(program.get(&feed).await.unwrap().0, StatusCode::OK);
    std::fs::write(&token, "a-token-of-the-feed-of-enough-length").unwrap();
    eventually("they are taken over", async || {
        let status = program.get(&feed).await?.0;
        (status == StatusCode::UNAUTHORIZED).then_some(())
    })
    .await;
    program.stop().await;
}

/// Connections that were refused, and answers other than the 404 of an unknown path or the 503 of
/// a data plane that is about to end.
async fn knock(address: String, stop: Arc<AtomicBool>) -> (u64, Vec<String>) {
    let (http, mut answered, mut wrong) = (http(), 0, Vec::new());
    while !stop.load(Ordering::SeqCst) {
        let request = http.get(format!("http://{address}/booking/none"));
        match request.send().await {
            Ok(answer) if matches!(answer.status().as_u16(), 404 | 503) => answered += 1,
            Ok(answer) => wrong.push(answer.status().to_string()),
            Err(error) if error.is_connect() => wrong.push(format!("{error:?}")),
            // A kept connection that was closed just then: a sender tries again.
            Err(_) => {}
        }
    }
    (answered, wrong)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_settings_are_taken_over_without_a_refused_connection() {
    let pod = Pod::new().await;
    let key = pod.register().await;
    pod.keys.set([("rate", Some(&format!("{key}\n")))]);
    let program = pod.start().await;
    let rate = pod.rate();
    let mut consumer = Consumer::default();
    until_held(&pod, &program, &mut consumer, &rate).await;
    let stop = Arc::new(AtomicBool::new(false));
    let knocking = tokio::spawn(knock(program.public.clone(), stop.clone()));

    let sink = json!({ "sinks": [{ "name": "orders", "http": { "uri": "http://127.0.0.1:9" } }] });
    pod.tell(&config(&pod.world, &sink));
    eventually("the new sink is there", async || {
        let url = format!("http://{}/status", program.admin);
        let (_, text) = program.get(&url).await?;
        let status: Value = serde_json::from_str(&text).ok()?;
        (status["sinks"][0]["name"] == "orders").then_some(())
    })
    .await;
    pod.world.change(&rate);
    until_held(&pod, &program, &mut consumer, &rate).await;
    // What cannot be read changes nothing.
    pod.settings.set([("settings.yaml", Some("process: []"))]);
    eventually("it says so", async || {
        program.logged("the settings in use stay").map(drop)
    })
    .await;
    pod.world.change(&rate);
    until_held(&pod, &program, &mut consumer, &rate).await;
    stop.store(true, Ordering::SeqCst);
    let (answered, wrong) = knocking.await.unwrap();
    assert!(wrong.is_empty() && answered > 0, "{answered} {wrong:?}");
    let log = program.stop().await;
    assert_eq!(log.matches("other settings are taken over").count(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settings_that_cannot_be_used_are_named() {
    let pod = Pod::new().await;
    pod.settings.set([("settings.yaml", Some("process: []"))]);
    let ended = Finished::of(pod.command());
    assert_eq!(ended.code, Some(2), "{}", ended.err);
    assert!(ended.err.contains("settings.yaml"), "{}", ended.err);
    assert!(ended.err.contains("of the same version"), "{}", ended.err);
    pod.settings.set([("settings.yaml", None)]);
    let ended = Finished::of(pod.command());
    assert_eq!(ended.code, Some(2), "{}", ended.err);
    assert!(ended.err.contains("bellhop run"), "{}", ended.err);
}

//! A manifest that changes while the program runs. Oracle: the headers that a sink of this test
//! gets, and what the program says.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::http::HeaderMap;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::rig::{Program, World, eventually, manifest, provider};

/// A sink that keeps the headers of the newest request.
async fn sink() -> (String, Arc<Mutex<HeaderMap>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/events", listener.local_addr().unwrap());
    let got = Arc::<Mutex<HeaderMap>>::default();
    let heard = got.clone();
    let router = Router::new().fallback(move |headers: HeaderMap| {
        *heard.lock().unwrap() = headers;
        async {}
    });
    tokio::spawn(async move { axum::serve(listener, router).await });
    (url, got)
}

fn with_secret(spec: &str, headers: &str) -> String {
    manifest(spec)
        + "---\napiVersion: v1\nkind: Secret\nmetadata: { name: sink-headers, namespace: default }\n"
        + &format!("stringData: {headers}\n")
}

async fn told(program: &Program, what: &str, wanted: Value) {
    eventually(what, async || {
        (program.status().await["manifest"] == wanted).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sinks_secret_is_taken_over_and_the_rest_waits_for_a_restart() {
    let world = World::new(provider()).await;
    let (url, got) = sink().await;
    let sinks = format!(
        "sinks: [{{ name: orders, http: {{ uri: \"{url}\", headersFrom: {{ secretRef: {{ name: sink-headers }} }} }} }}]"
    );
    let write = |text: &str| std::fs::write(world.manifest_file(), text).unwrap();
    let first = with_secret(&sinks, "{ x-token: first, x-extra: one }");
    write(&first);
    let program = Program::start(world.command(), super::rig::http()).await;
    let to = format!("http://{}", program.public);
    world.control.deliver_to(Some(to)).unwrap();
    program.settled().await;
    let header = |name: &str| {
        let got = got.lock().unwrap();
        got.get(name)
            .map(|value| value.to_str().unwrap().to_owned())
    };
    let sent = async |token: &str, extra: Option<&str>| {
        eventually("the sink gets these headers", async || {
            world.change(&world.keys("rate/")[0]);
            let same = header("x-token").as_deref() == Some(token)
                && header("x-extra").as_deref() == extra;
            same.then_some(())
        })
        .await;
    };
    sent("first", Some("one")).await;
    let nothing = json!({ "restartToApply": [], "mistakes": null });
    assert_eq!(program.status().await["manifest"], nothing);

    // A new value, and a key that is gone.
    write(&with_secret(&sinks, "{ x-token: second }"));
    sent("second", None).await;
    assert_eq!(program.status().await["manifest"], nothing);

    // The subscription itself: told, not acted on.
    let other = format!("{sinks}\nfeed: {{ auth: None }}\nsignature: {{ maxAge: 1h }}");
    write(&with_secret(&other, "{ x-token: third }"));
    let pending = json!({ "restartToApply": ["spec.feed", "spec.signature"], "mistakes": null });
    told(&program, "what a restart would apply is told", pending).await;
    sent("third", None).await;
    let line = program
        .logged("the subscription changed in its file; restart to apply it")
        .unwrap();
    assert_eq!(line["changed"], "spec.feed, spec.signature");

    // Mistakes: told, and nothing of the file is taken.
    write(&with_secret(
        "signature: { maxAge: soon }",
        "{ x-token: fourth }",
    ));
    let mistakes = eventually("the mistakes are told", async || {
        let status = program.status().await;
        status["manifest"]["mistakes"].as_str().map(str::to_owned)
    })
    .await;
    assert!(mistakes.contains("maxAge"), "{mistakes}");
    sent("third", None).await;

    write(&with_secret(&sinks, "{ x-token: fifth }"));
    told(&program, "it is as it runs again", nothing).await;
    sent("fifth", None).await;
    for secret in ["first", "second", "third", "fourth", "fifth"] {
        assert!(!program.log().contains(secret), "{secret}");
    }
    program.stop().await;

    // A restart does apply it.
    write(&with_secret(&other, "{ x-token: sixth }"));
    let program = Program::start(world.command(), super::rig::http()).await;
    let to = format!("http://{}", program.public);
    world.control.deliver_to(Some(to)).unwrap();
    sent("sixth", None).await;
    assert_eq!(
        program.status().await["manifest"]["restartToApply"],
        json!([])
    );
    program.stop().await;
}

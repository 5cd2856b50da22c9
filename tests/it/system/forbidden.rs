//! 403 to the reads of one entity, which is not about the credentials. Oracle: the simulator's truth,
//! and its record of requests.

use serde_json::json;

use super::rig::{Consumer, World, eventually, provider};

/// The others go on without it; it is tried five times and then a dead letter, which a new
/// notification revives.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_forbidden_entity_holds_up_no_other() {
    let world = World::new(provider()).await;
    let program = world.start("").await;
    program.settled().await;
    let mut consumer = Consumer::default();
    world.equal(&program, &mut consumer).await;
    let rates = world.keys("rate/");
    let denied = &rates[0];
    let path = format!("/rates/{}", denied.rsplit('/').next().unwrap());
    world.faults(json!({ "fail": 1.0, "fail-status": [403], "fail-path": path, "on": "reseller" }));
    let before = world.control.requests(0, usize::MAX).len();
    for rate in &rates {
        world.change(rate);
    }
    let letters = async || {
        let status = program.status().await;
        status["store"]["deadLetters"]["fetch"].as_u64().unwrap()
    };
    let types = program.types().await;
    eventually("all but one are published", async || {
        consumer.catch_up(&program).await;
        (consumer.difference(&world.truth(&types)) == *denied).then_some(())
    })
    .await;
    assert_eq!(letters().await, 0, "the others wait for its end");
    eventually("it is given up", async || {
        (letters().await == 1).then_some(())
    })
    .await;
    let reads = world.control.requests(0, usize::MAX).split_off(before);
    let denials = reads.iter().filter(|one| one.status == 403).count();
    assert!((5..=6).contains(&denials), "{denials} attempts");
    let url = format!("http://{}/dead-letters", program.admin);
    let shown = program.get(&url).await.unwrap().1;
    assert!(shown.contains(denied) && shown.contains("403"), "{shown}");
    // The credentials were never in doubt.
    let valid = program.condition("CredentialsValid").await.unwrap();
    assert_eq!(valid.0, "True");
    assert!(!program.log().contains("refuses the credentials"));

    world.no_faults();
    world.change(denied);
    world.equal(&program, &mut consumer).await;
    eventually("no dead letter is left", async || {
        (letters().await == 0).then_some(())
    })
    .await;
    program.stop().await;
}

//! Credentials of another account. Oracle: the rules that two simulators hold, each an account of
//! its own.

use std::process::Command;

use bellhop::simulator::{Config, Control};
use serde_json::{Map, Value};

use super::rig::{Finished, Program, World, eventually, http, manifest, provider};

const OTHER_KEY: &str = "another-key";

fn rules(control: &Control) -> Map<String, Value> {
    let rules = control.rules().into_iter();
    rules
        .map(|(kind, rule)| (kind.name().to_owned(), rule))
        .collect()
}

/// `bellhop run` of one world's data folder, at the other's provider with its key.
fn moved(world: &World, other: &World) -> Command {
    let text = manifest("").replace("demo-key", OTHER_KEY);
    std::fs::write(world.manifest_file(), text).unwrap();
    world.command_for(&other.simulator.registry_url(), &other.simulator.api_url())
}

async fn start(command: Command) -> Program {
    Program::start(command, http()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_second_set_of_rules_is_made_in_another_account_until_told() {
    let world = World::new(provider()).await;
    let other = World::new(Config {
        api_key: OTHER_KEY.to_owned(),
        ..provider()
    })
    .await;
    let program = world.start("").await;
    program.settled().await;
    program.stop().await;
    let made = rules(&world.control);
    assert_eq!(made.len(), 2);

    let program = start(moved(&world, &other)).await;
    program
        .until_condition("Registered", "False", "ChannelChanged")
        .await;
    program
        .until_condition("Ready", "False", "ChannelChanged")
        .await;
    program
        .until_condition("CredentialsValid", "True", "CredentialsAccepted")
        .await;
    let status = program.status().await;
    assert_eq!(status["registered"], "0/2");
    let message = status["rules"]["Rate"]["message"].as_str().unwrap();
    assert!(message.contains("--move-account"), "{message}");
    assert!(message.contains("--deregister"), "{message}");
    let log = program.stop().await;
    assert!(log.contains("--move-account"), "{log}");
    for secret in [OTHER_KEY, "demo-key", "demo-secret"] {
        assert!(!log.contains(secret) && !status.to_string().contains(secret));
    }
    // Not even what would be gone is said to be gone: it is not this account's.
    let mut command = moved(&world, &other);
    command.arg("--deregister");
    let ended = Finished::of(command);
    assert_eq!(ended.code, Some(1), "{}{}", ended.out, ended.err);
    assert!(ended.err.contains("ChannelChanged"), "{}", ended.err);
    assert!(rules(&other.control).is_empty());
    assert_eq!(rules(&world.control), made);

    // The old keys again: as if nothing had been.
    let program = world.start("").await;
    program.settled().await;
    program.stop().await;
    assert_eq!(rules(&world.control), made);

    // Told, once: the next start needs no word.
    for told in [true, false] {
        let mut command = moved(&world, &other);
        if told {
            command.arg("--move-account");
        }
        let program = start(command).await;
        eventually("the rules are made", async || {
            (program.status().await["registered"] == "2/2").then_some(())
        })
        .await;
        program.stop().await;
    }
    assert_eq!(rules(&other.control).len(), 2);
    assert_eq!(rules(&world.control), made, "nobody had the keys to them");
    // With the old account's keys it would be another account now; its own can be left.
    let mut command = moved(&world, &other);
    command.arg("--deregister");
    assert_eq!(Finished::of(command).code, Some(0));
    assert!(rules(&other.control).is_empty());
}

/// Another key of the same account shows our rules: nothing to say, nothing to make.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_key_of_the_same_account_is_no_other_account() {
    let world = World::new(provider()).await;
    let program = world.start("").await;
    program.settled().await;
    program.stop().await;
    let before = rules(&world.control);
    // The note is of another key, as after a rotation.
    let note = world.data_dir().join("account");
    let noted = std::fs::read_to_string(&note).unwrap();
    std::fs::write(&note, "0123456789ab\n").unwrap();
    let program = world.start("").await;
    program.settled().await;
    program.stop().await;
    assert_eq!(rules(&world.control), before);
    assert_eq!(std::fs::read_to_string(&note).unwrap(), noted);
}

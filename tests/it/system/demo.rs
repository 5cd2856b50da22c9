//! `bellhop demo --count`, as a person or a script meets it. Oracles: its exit code, and the
//! provider's control API, by which a test changes what nobody is told of.

use std::io::{BufRead, BufReader, Read as _};
use std::process::{Command, Stdio};
use std::time::Duration;

use super::rig::{Finished, bellhop, http};

const CHANGES: u64 = 25;

/// The demo that makes a few changes and ends. The seed decides what is changed.
fn demo() -> Command {
    let mut command = bellhop();
    let changes = CHANGES.to_string();
    command.args(["demo", "--seed", "7", "--count", &changes]);
    command
}

/// The numbers of the summary by name, and the line about the time to the consumer.
fn summary(out: &str) -> (Vec<(&str, u64)>, &str) {
    let (_, summary) = out.split_once("\nsummary\n").expect(out);
    let lines = summary.lines().take_while(|line| line.starts_with("  "));
    let (times, rows): (Vec<&str>, Vec<&str>) = lines.partition(|line| line.contains("p50"));
    let rows = rows.into_iter().map(|line| {
        let mut words = line.split_whitespace();
        let name = words.next().unwrap();
        let number = words.next().unwrap().parse().expect(line);
        assert!(words.next().is_some(), "{line} does not say what it counts");
        (name, number)
    });
    (rows.collect(), times[0])
}

#[test]
fn ends_equal_with_a_summary_in_plain_lines() {
    let ended = Finished::of(demo());
    assert_eq!(ended.code, Some(0), "{}{}", ended.out, ended.err);
    let out = &ended.out;
    assert!(out.contains("\nequal: all "), "{out}");
    // Nothing that only a terminal understands: this is a pipe.
    let control = out.chars().find(|c| c.is_control() && *c != '\n');
    assert_eq!(control, None, "{out:?}");
    assert!(out.contains("events at the consumer\n"), "progress: {out}");

    let (rows, times) = summary(out);
    let names: Vec<&str> = rows.iter().map(|(name, _)| *name).collect();
    let wanted = [
        "changed",
        "received",
        "duplicate",
        "stale",
        "refused",
        "coalesced",
        "fetched",
        "published",
        "consumed",
    ];
    assert_eq!(names, wanted);
    let count = |wanted: &str| rows.iter().find(|(name, _)| *name == wanted).unwrap().1;
    assert_eq!(count("changed"), CHANGES);
    // In good weather each change is told once, and nothing is turned away.
    assert_eq!(count("received"), CHANGES);
    assert_eq!((count("duplicate"), count("refused")), (0, 0));
    assert!(count("fetched") > 0 && count("fetched") >= count("published"));
    assert!(count("published") > 0 && count("published") + count("coalesced") <= CHANGES + 5);
    let number = |name: &str| -> u64 {
        let (_, after) = times.split_once(name).expect(times);
        after.split_whitespace().next().unwrap().parse().unwrap()
    };
    assert!(
        0 < number("p50") && number("p50") <= number("p99"),
        "{times}"
    );
}

/// What the provider changes and tells nobody of is noticed, and by the comparison alone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_entity_that_differs_fails_it() {
    let mut command = demo();
    command.args(["--settle-seconds", "3"]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut until = |word: &str| {
        let found = lines
            .by_ref()
            .map(Result::unwrap)
            .find(|line| line.contains(word));
        found.unwrap_or_else(|| panic!("it never said `{word}`"))
    };
    let provider = until("  provider ");
    let provider = provider.split_whitespace().nth(1).unwrap().to_owned();
    until("making 25 changes");
    // Again and again, so that no full read that is still under way finds the last one.
    let sabotage = tokio::spawn(async move {
        let entities = format!("{provider}/control/entities");
        let all = http()
            .get(format!("{entities}?prefix=supplier/"))
            .send()
            .await
            .unwrap();
        let all: Vec<String> = serde_json::from_slice(&all.bytes().await.unwrap()).unwrap();
        let victim = all[0].clone();
        let url = format!("{entities}/{victim}?notify=false");
        while http().patch(&url).send().await.is_ok() {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        victim
    });
    let (status, err) = tokio::task::spawn_blocking(move || {
        for _ in lines {}
        let mut err = String::new();
        child
            .stderr
            .take()
            .unwrap()
            .read_to_string(&mut err)
            .unwrap();
        (child.wait().unwrap(), err)
    })
    .await
    .unwrap();
    let victim = sabotage.await.unwrap();
    assert_eq!(status.code(), Some(1), "{err}");
    assert!(
        err.contains("1 entities differ from the provider's truth at the end"),
        "{err}"
    );
    assert!(err.contains(&victim), "{victim}: {err}");
}

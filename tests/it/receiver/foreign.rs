//! Signatures by Python's standard library and by `openssl`, over random keys and tokens: those that
//! the receiver must believe, and those that the simulated provider makes.

use std::io::Write;
use std::process::{Command, Stdio};

use bellhop::receiver::signature::{LayoutMemory, SigningKey, Unverified};
use bellhop::secrets::Secret;
use bellhop::settings::SignatureScheme;
use bellhop::simulator::{Scheme, sum};

/// A case: key, timestamp, token. No NUL (an argument of a program cannot hold one).
fn cases(count: usize) -> Vec<(String, i64, String)> {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let mut text = |most: usize| -> String {
        let length = random.usize(1..=most);
        (0..length)
            .map(|_| match random.u8(0..4) {
                0 => random.char('\u{1}'..='\u{ff}'),
                1 => random.char('\u{100}'..='\u{ffff}'),
                2 => random.char('\u{10000}'..='\u{10ffff}'),
                _ => random.alphanumeric(),
            })
            .collect()
    };
    let texts: Vec<_> = (0..count).map(|_| (text(80), text(60))).collect();
    texts
        .into_iter()
        .map(|(key, token)| {
            let timestamp = random.i64(..);
            (key, timestamp, token)
        })
        .collect()
}

fn verifies(key: &str, timestamp: i64, token: &str, sum: &str) -> bool {
    let body = serde_json::json!({
        "signature": { "sum": sum, "timestamp": timestamp, "token": token }
    });
    let unverified = Unverified::parse(body.to_string().into()).unwrap();
    let key = SigningKey::new(Secret::new(key));
    unverified
        .verify(&key, SignatureScheme::Auto, &LayoutMemory::default())
        .is_ok()
}

/// Whether the program is there; with `CI=true` it must be.
fn available(program: &str) -> bool {
    let there = Command::new(program)
        .arg(if program == "openssl" {
            "version"
        } else {
            "--version"
        })
        .output()
        .is_ok_and(|output| output.status.success());
    if !there {
        crate::skip::without(&format!("{program} is missing"));
    }
    there
}

fn run(program: &str, arguments: &[&str], input: &[u8]) -> String {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{program}");
    String::from_utf8(output.stdout).unwrap()
}

const PYTHON: &str = r#"
import hashlib, hmac, json, sys
for line in sys.stdin:
    key, t, token = json.loads(line)
    k, t, n = key.encode(), str(t).encode(), token.encode()
    md5 = lambda *parts: hashlib.md5(b"".join(parts)).hexdigest()
    print(json.dumps([
        hmac.new(k, t + n, hashlib.sha256).hexdigest(),
        md5(k, t, n), md5(t, n, k), md5(k, n, t), md5(n, t, k),
        md5(k, b":", t, b":", n), md5(k, b".", t, b".", n),
        hmac.new(k, t + n, hashlib.md5).hexdigest()]))
"#;

#[test]
fn python_and_we_agree() {
    if !available("python3") {
        return;
    }
    let cases = cases(300);
    let input: String = cases
        .iter()
        .map(|case| serde_json::to_string(case).unwrap() + "\n")
        .collect();
    let output = run("python3", &["-c", PYTHON], input.as_bytes());
    let mut compared = 0;
    for ((key, timestamp, token), line) in cases.iter().zip(output.lines()) {
        let sums: Vec<String> = serde_json::from_str(line).unwrap();
        let simulated = Scheme::ALL.map(|scheme| sum(scheme, key, *timestamp, token));
        assert_eq!(sums, simulated, "{key} {timestamp} {token}");
        for sum in sums {
            assert!(
                verifies(key, *timestamp, token, &sum),
                "{key} {timestamp} {token} {sum}"
            );
            assert!(!verifies(&format!("{key}x"), *timestamp, token, &sum));
            assert!(!verifies(key, timestamp ^ 1, token, &sum));
            compared += 1;
        }
    }
    assert_eq!(compared, 300 * 8);
}

#[test]
fn openssl_and_we_agree() {
    if !available("openssl") {
        return;
    }
    for (key, timestamp, token) in cases(20) {
        let key_option = format!("hexkey:{}", hex::encode(&key));
        let message = format!("{timestamp}{token}");
        let plain = format!("{key}{timestamp}{token}");
        for (scheme, digest, message, mac) in [
            (Scheme::HmacSha256, "-sha256", message.clone(), true),
            (Scheme::Md5G, "-md5", message, true),
            (Scheme::Md5A, "-md5", plain, false),
        ] {
            let mut arguments = vec!["dgst", digest, "-r"];
            if mac {
                arguments.extend(["-mac", "HMAC", "-macopt", &key_option]);
            }
            let output = run("openssl", &arguments, message.as_bytes());
            let made = output.split_whitespace().next().unwrap();
            assert!(
                verifies(&key, timestamp, &token, made),
                "{key} {timestamp} {token}"
            );
            assert_eq!(sum(scheme, &key, timestamp, &token), made, "{scheme:?}");
        }
    }
}

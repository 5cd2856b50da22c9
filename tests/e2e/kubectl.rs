//! The real kubectl: the only way in which these tests talk to a cluster. What runs in pods is
//! reached through the API server's proxy, so that a cluster of a user's works like our own.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// kubectl, and which cluster it talks to.
#[derive(Debug, Clone)]
pub struct Kubectl {
    /// The program.
    pub program: PathBuf,
    /// Which cluster, and as whom.
    pub kubeconfig: PathBuf,
}

/// What a command said.
#[derive(Debug)]
pub struct Said {
    /// Whether it ended well.
    pub well: bool,
    /// On stdout.
    pub out: String,
    /// On stderr.
    pub err: String,
}

impl Said {
    /// What it printed, when it had to end well.
    #[track_caller]
    pub fn fine(self) -> String {
        assert!(self.well, "{}{}", self.out, self.err);
        self.out
    }
}

/// Runs a command to its end.
pub fn run(command: &mut Command, input: &str) -> Said {
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_owned();
    // Written beside, as the child may answer before it has read all.
    let writing = std::thread::spawn(move || stdin.write_all(input.as_bytes()));
    let output = child.wait_with_output().unwrap();
    // A child that did not want its input is judged by what it says.
    let _ = writing.join();
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Said {
        well: output.status.success(),
        out: text(output.stdout),
        err: text(output.stderr),
    }
}

impl Kubectl {
    /// The command, without its arguments.
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.env("KUBECONFIG", &self.kubeconfig);
        command
    }

    /// Runs it; `arguments` are words with blanks between.
    pub fn say(&self, arguments: &str) -> Said {
        self.with(arguments, "")
    }

    /// The same, with text on its stdin (`-f -`).
    pub fn with(&self, arguments: &str, input: &str) -> Said {
        run(self.command().args(arguments.split_whitespace()), input)
    }

    /// What it printed; it had to end well.
    #[track_caller]
    pub fn fine(&self, arguments: &str) -> String {
        self.say(arguments).fine()
    }

    /// Applies manifests.
    #[track_caller]
    pub fn apply(&self, manifests: &str) {
        self.with("apply --server-side --force-conflicts -f -", manifests)
            .fine();
    }

    /// One object, or a list.
    #[track_caller]
    pub fn get(&self, what: &str) -> Value {
        serde_json::from_str(&self.fine(&format!("get {what} --output=json"))).unwrap()
    }

    /// Merges a patch.
    #[track_caller]
    pub fn patch(&self, what: &str, patch: &Value) {
        let patch = patch.to_string();
        let mut command = self.command();
        command.arg("patch").args(what.split_whitespace());
        command.args(["--type=merge", "--patch", &patch]);
        run(&mut command, "").fine();
    }

    /// Waits until a condition holds, as `kubectl wait` understands it.
    #[track_caller]
    pub fn wait(&self, what: &str, condition: &str, seconds: u64) {
        let said = self.say(&format!(
            "wait {what} --for={condition} --timeout={seconds}s"
        ));
        assert!(
            said.well,
            "{what} is not {condition}: {}{}",
            said.out, said.err
        );
    }

    /// GET of a path of the API server.
    pub fn get_raw(&self, path: &str) -> Result<Value, String> {
        answer(&self.say(&format!("get --raw {path}")))
    }

    /// PUT.
    pub fn put_raw(&self, path: &str, body: &Value) -> Result<Value, String> {
        answer(&self.with(&format!("replace --raw {path} -f -"), &body.to_string()))
    }

    /// POST.
    pub fn post_raw(&self, path: &str, body: &Value) -> Result<Value, String> {
        answer(&self.with(&format!("create --raw {path} -f -"), &body.to_string()))
    }
}

fn answer(said: &Said) -> Result<Value, String> {
    if !said.well {
        return Err(said.err.trim().to_owned());
    }
    serde_json::from_str(&said.out).map_err(|error| format!("{error}: {}", said.out))
}

/// What a condition gives once it holds. Polls: what is waited for is in another process.
#[track_caller]
pub fn eventually<T>(
    what: &str,
    seconds: u64,
    mut condition: impl FnMut() -> Result<T, String>,
) -> T {
    let begun = Instant::now();
    loop {
        match condition() {
            Ok(value) => return value,
            Err(why) => assert!(
                begun.elapsed() < Duration::from_secs(seconds),
                "not so after {seconds} s: {what}: {why}"
            ),
        }
        std::thread::sleep(Duration::from_millis(250));
    }
}

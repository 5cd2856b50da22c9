//! A namespace of one test: a random name, the clients to work in it, and what is in it when the
//! test fails.

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::{Command, Stdio};

use k8s_openapi::api::core::v1::Namespace;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};

use super::plane::{self, Plane};

/// The namespace. It is left there: no controller runs that would empty it, and the control plane
/// goes with the process.
pub struct Space {
    /// Its name.
    pub name: String,
    /// A client of an administrator.
    pub client: Client,
    /// The control plane.
    pub plane: &'static Plane,
}

impl Space {
    /// A new namespace; none, with a word, where no control plane can be started.
    pub async fn new(test: &str) -> Option<Self> {
        // The first test starts the control plane, which blocks for seconds.
        let plane = tokio::task::spawn_blocking(plane::shared).await.unwrap()?;
        Some(Self::on(plane, &format!("{test}-{:08x}", fastrand::u32(..))).await)
    }

    /// A new namespace of a certain name.
    pub async fn on(plane: &'static Plane, name: &str) -> Self {
        let client = plane::client(&plane.admin).await;
        let name = name.to_owned();
        let namespace = Namespace {
            metadata: ObjectMeta {
                name: Some(name.clone()),
                ..ObjectMeta::default()
            },
            ..Namespace::default()
        };
        let all: Api<Namespace> = Api::all(client.clone());
        all.create(&PostParams::default(), &namespace)
            .await
            .unwrap();
        Self {
            name,
            client,
            plane,
        }
    }

    /// Runs the real kubectl in this namespace.
    pub fn kubectl<const N: usize>(&self, arguments: [&str; N]) -> Said {
        self.kubectl_with(arguments, "")
    }

    /// The same, with text on its stdin (`-f -`).
    pub fn kubectl_with<const N: usize>(&self, arguments: [&str; N], input: &str) -> Said {
        let mut command = self.plane.kubectl();
        command.args(["--namespace", &self.name]).args(arguments);
        Said::of(command, input)
    }

    /// The same, in another namespace.
    pub fn kubectl_in<const N: usize>(&self, namespace: &str, arguments: [&str; N]) -> Said {
        self.kubectl_in_with(namespace, arguments, "")
    }

    /// The same, with text on its stdin.
    pub fn kubectl_in_with<const N: usize>(
        &self,
        namespace: &str,
        arguments: [&str; N],
        input: &str,
    ) -> Said {
        let mut command = self.plane.kubectl();
        command.args(["--namespace", namespace]).args(arguments);
        Said::of(command, input)
    }

    fn dump(&self) -> String {
        let mut text = format!("\n--- what is in namespace {} ---\n", self.name);
        for arguments in [
            ["get", "whs", "--output=yaml"],
            ["get", "events", "--sort-by=.lastTimestamp"],
            // Names alone: a dump goes to logs.
            ["get", "secrets,configmaps,services,leases", "--output=name"],
            ["get", "pods,statefulsets,pvc,ingresses", "--output=wide"],
        ] {
            let said = self.kubectl(arguments);
            let _ = write!(
                text,
                "$ kubectl {}\n{}{}",
                arguments.join(" "),
                said.out,
                said.err
            );
        }
        text
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("{}", self.dump());
        }
    }
}

/// What kubectl said.
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
    /// Runs a command to its end.
    pub fn of(mut command: Command, input: &str) -> Self {
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(input.as_bytes()).unwrap();
        drop(stdin);
        let output = child.wait_with_output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Self {
            well: output.status.success(),
            out: text(output.stdout),
            err: text(output.stderr),
        }
    }

    /// What it printed, when it had to end well.
    #[track_caller]
    pub fn fine(self) -> String {
        assert!(self.well, "kubectl failed: {}{}", self.out, self.err);
        self.out
    }

    /// What it complained about, when it had to fail.
    #[track_caller]
    pub fn refused(self) -> String {
        assert!(!self.well, "kubectl did not fail: {}{}", self.out, self.err);
        self.err
    }
}

/// Runs only as a child of the test below.
#[test]
#[ignore = "fails on purpose, in a process that another test starts"]
fn fails() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let Some(space) = runtime.block_on(Space::new("fails")) else {
        return;
    };
    let event = serde_json::json!({
        "apiVersion": "v1", "kind": "Event",
        "metadata": { "name": "shop.1", "namespace": space.name },
        "involvedObject": { "kind": "WebhookSubscription", "name": "shop", "namespace": space.name },
        "type": "Warning", "reason": "SomethingHappened", "message": "to be seen"
    });
    for object in [super::rules::smallest("shop"), event] {
        let said = space.kubectl_with(["create", "-f", "-"], &object.to_string());
        said.fine();
    }
    panic!("on purpose");
}

#[test]
fn a_test_that_fails_shows_objects_and_events() {
    if plane::shared().is_none() {
        return;
    }
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--ignored", "--exact", "cluster::space::fails"]);
    let said = Said::of(child, "");
    assert!(!said.well && said.out.contains("on purpose"), "{said:?}");
    for part in [
        "kind: WebhookSubscription",
        "https://hooks.example.com",
        "SomethingHappened",
        "to be seen",
    ] {
        assert!(said.out.contains(part), "{part}: {}", said.out);
    }
}

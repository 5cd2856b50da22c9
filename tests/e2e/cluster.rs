//! The cluster of a run: the one of tests/cluster, started here unless it runs already, or a user's
//! (`E2E_CONTEXT`). One that was started here ends with this process, however that ends.

use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::kubectl::{Kubectl, Said, run};
use crate::{operator, provider, walk};

/// The namespaces that a run makes, beside those of its scenarios.
pub const MADE: [&str; 4] = [
    operator::NAMESPACE,
    provider::NAMESPACE,
    walk::NAMESPACES[0],
    walk::NAMESPACES[1],
];

/// A running cluster.
pub struct Cluster {
    /// How to talk to it.
    pub kubectl: Kubectl,
    /// The image of Bellhop there.
    pub image: String,
    /// The image of the tests' own programs there.
    pub pods: String,
    /// Whether it is the one of tests/cluster, of which more is known.
    pub own: bool,
    guard: Option<Guard>,
    /// Removed at the end.
    kept: Option<tempfile::NamedTempFile>,
}

/// Ends the cluster when its stdin is closed: by a drop, or by the kernel when this process is gone.
struct Guard(Child);

impl Drop for Guard {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

/// A file of the project.
pub fn project(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn script(name: &str) -> Command {
    Command::new(project("tests/cluster").join(name))
}

fn runs_already() -> bool {
    inside("true").well
}

/// Runs a command in the network of the project's cluster; words with blanks between.
pub fn inside(command: &str) -> Said {
    run(script("enter").args(command.split_whitespace()), "")
}

/// Has the project's cluster run, with these images in it; its own words go to the terminal.
pub fn up(image: &Path) {
    let up = script("up").arg(image).status().unwrap();
    assert!(up.success(), "the cluster did not start");
}

/// Makes an image of the tests' own pods.
pub fn make_pods_image(at: &Path) {
    run(script("image").arg("pods").arg(at), "").fine();
}

/// The number of the process that holds the project's cluster.
pub fn holder() -> std::io::Result<String> {
    let holder = std::fs::read_to_string(project("target/cluster/holder"))?;
    Ok(holder.split_whitespace().take(1).collect())
}

/// The image of Bellhop for the project's cluster, where that can run.
fn image_of_project() -> Result<PathBuf, String> {
    let check = run(&mut script("check"), "");
    if !check.well {
        return Err(format!("{}{}", check.out.trim(), check.err.trim()));
    }
    let image = project("target/image/bellhop.tar");
    if !project("target/tools/bin/helm").is_file() {
        return Err("no helm in target/tools; run `make tools`".to_owned());
    }
    if !image.is_file() {
        return Err(format!("no {}; run `make image`", image.display()));
    }
    Ok(image)
}

impl Cluster {
    /// The cluster for this run.
    ///
    /// # Errors
    /// Why there can be none here.
    pub fn start() -> Result<Self, String> {
        match std::env::var("E2E_CONTEXT") {
            Ok(context) => Self::of_user(&context),
            Err(_) => Self::of_project(),
        }
    }

    /// Whether a run takes a user's.
    pub fn is_of_user() -> bool {
        std::env::var_os("E2E_CONTEXT").is_some()
    }

    /// Whether a run starts the project's, and ends it: not where one runs already.
    ///
    /// # Errors
    /// Why there can be none here.
    pub fn is_to_be_started() -> Result<bool, String> {
        image_of_project()?;
        Ok(!runs_already())
    }

    fn of_user(context: &str) -> Result<Self, String> {
        let image = |name: &str, what: &str| {
            std::env::var(name).map_err(|_| {
                format!("with E2E_CONTEXT, {name} names {what} that the cluster can pull")
            })
        };
        // That context alone, in a file of its own: nothing can go to another cluster.
        let mut view = Command::new("kubectl");
        view.args([
            "config",
            "view",
            "--minify",
            "--flatten",
            "--context",
            context,
        ]);
        let said = run(&mut view, "");
        if !said.well {
            return Err(format!("E2E_CONTEXT={context}: {}", said.err.trim()));
        }
        let kubeconfig = tempfile::Builder::new()
            .prefix("bellhop-e2e-")
            .tempfile()
            .unwrap();
        std::fs::write(kubeconfig.path(), said.out).unwrap();
        let kubectl = Kubectl {
            program: "kubectl".into(),
            kubeconfig: kubeconfig.path().to_owned(),
        };
        // They install, upgrade and uninstall it: not somebody's own.
        let crd = "get crd webhooksubscriptions.bellhop.dev --ignore-not-found -o name";
        if !kubectl.fine(crd).trim().is_empty() {
            return Err(format!(
                "E2E_CONTEXT={context}: Bellhop is there already, and these tests would take it over and remove it; choose another cluster, or uninstall it and its resource first"
            ));
        }
        let there = "get namespaces --ignore-not-found -o name";
        let there = kubectl.fine(&format!("{there} {}", MADE.join(" ")));
        if !there.trim().is_empty() {
            return Err(format!(
                "E2E_CONTEXT={context}: these tests make and remove namespaces that are there already; choose another cluster, or remove them first: {}",
                there.split_whitespace().collect::<Vec<_>>().join(", ")
            ));
        }
        Ok(Self {
            kubectl,
            image: image("E2E_IMAGE", "an image of Bellhop")?,
            pods: image("E2E_PODS_IMAGE", "an image of tests/tools/pods")?,
            kept: Some(kubeconfig),
            own: false,
            guard: None,
        })
    }

    fn of_project() -> Result<Self, String> {
        let image = image_of_project()?;
        let guard = (!runs_already()).then(|| {
            let mut guard = Command::new("sh");
            guard.args(["-c", "cat >/dev/null; exec \"$0\""]);
            guard.arg(project("tests/cluster/down"));
            // A group of its own: Ctrl-C reaches it only through the pipe.
            guard.process_group(0).stdin(Stdio::piped());
            Guard(guard.spawn().unwrap())
        });
        up(&image);
        enter();
        let tools = project("target/tools/bin");
        Ok(Self {
            kubectl: Kubectl {
                program: tools.join("kubernetes-1.35/kubectl"),
                kubeconfig: project("target/cluster/admin.kubeconfig"),
            },
            image: format!("localhost/bellhop:{}", env!("CARGO_PKG_VERSION")),
            pods: "localhost/pods:e2e".to_owned(),
            own: true,
            guard,
            kept: None,
        })
    }

    /// The image of Bellhop under another name; none where a user's cluster has none.
    pub fn next_image(&self) -> Option<String> {
        if !self.own {
            return std::env::var("E2E_NEXT_IMAGE").ok();
        }
        let next = "localhost/bellhop:next";
        let tag = "ctr --namespace k8s.io images tag --force";
        inside(&format!("{tag} {} {next}", self.image)).fine();
        Some(next.to_owned())
    }

    /// Ends it, if it was started here.
    pub fn end(&mut self) {
        self.guard = None;
        self.kept = None;
    }
}

/// Moves this thread, and all that it starts from now on, into the cluster's network.
#[cfg(target_os = "linux")]
fn enter() {
    use std::os::fd::AsFd as _;

    use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

    let holder = holder().unwrap();
    let children = format!("/proc/{holder}/task/{holder}/children");
    let first = std::fs::read_to_string(children).unwrap();
    let first = first.split_whitespace().next().unwrap();
    let network = std::fs::File::open(format!("/proc/{first}/ns/net")).unwrap();
    move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
}

/// Off Linux a run takes a user's cluster, or says why it is left out: `tests/cluster/check`.
#[cfg(not(target_os = "linux"))]
fn enter() {
    panic!("the project's own cluster runs on Linux alone; E2E_CONTEXT=name takes one of yours");
}

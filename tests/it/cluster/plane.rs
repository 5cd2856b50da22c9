//! The control plane: etcd and kube-apiserver on loopback, with certificates of their own and RBAC
//! on. One per test process, made by the first test that asks, gone with the process.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Patch, PatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, Issuer, KeyPair};
use serde_json::{Value, json};

use super::supervise::Supervised;
use super::tools;

/// Ready in about three seconds on an idle machine; a busy one gets its time.
const PATIENCE: Duration = Duration::from_mins(2);

/// Who called what, with which answer; watches when they begin.
const AUDIT: &str = r#"{
    "apiVersion": "audit.k8s.io/v1", "kind": "Policy",
    "omitStages": ["RequestReceived", "Panic"],
    "rules": [{ "level": "Metadata" }]
}"#;

/// A running control plane with the CRD installed.
pub struct Plane {
    folder: PathBuf,
    /// Of the API server, on this machine.
    pub port: u16,
    ca: Issuer<'static, KeyPair>,
    ca_pem: String,
    kubectl: PathBuf,
    /// The kubeconfig of an administrator.
    pub admin: PathBuf,
    programs: [Supervised; 2],
}

/// The control plane of this process; none, with a word, where the programs are missing.
pub fn shared() -> Option<&'static Plane> {
    // A failure is kept as well: the other tests need not wait for it again.
    static PLANE: OnceLock<Option<Result<Plane, String>>> = OnceLock::new();
    let start = || Some(Plane::start(&Programs::find()?, true));
    match PLANE.get_or_init(start) {
        // Every test that is skipped says so itself.
        None => tools::kubernetes("kube-apiserver").and(None),
        Some(Ok(plane)) => Some(plane),
        Some(Err(why)) => panic!("the control plane did not start: {why}"),
    }
}

/// A control plane for one test alone, without the CRD.
pub fn own() -> Option<&'static Plane> {
    let plane = Plane::start(&Programs::find()?, false).unwrap();
    // Gone with the process, like the other one.
    Some(Box::leak(Box::new(plane)))
}

struct Programs {
    etcd: PathBuf,
    apiserver: PathBuf,
    kubectl: PathBuf,
}

impl Programs {
    fn find() -> Option<Self> {
        Some(Self {
            etcd: tools::find("etcd")?,
            apiserver: tools::kubernetes("kube-apiserver")?,
            kubectl: tools::kubernetes("kubectl")?,
        })
    }
}

/// One call to the API server.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Call {
    /// `get`, `watch`, `patch`, …
    pub verb: String,
    /// `bellhop.dev/webhooksubscriptions/status`; the path where it is about no resource.
    pub what: String,
    /// Empty: all, or none.
    pub namespace: String,
    /// The answer.
    pub code: u64,
}

impl Plane {
    fn start(programs: &Programs, with_crd: bool) -> Result<Self, String> {
        // Removed here when the start fails, by the supervisors afterwards.
        let temporary = tempfile::Builder::new()
            .prefix("bellhop-plane-")
            .tempdir()
            .unwrap();
        let folder = temporary.path();
        let port = free_port();
        let ca_key = KeyPair::generate().unwrap();
        let mut ca = CertificateParams::default();
        ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        ca.distinguished_name
            .push(DnType::CommonName, "bellhop-test-ca");
        let ca_pem = ca.self_signed(&ca_key).unwrap().pem();
        let ca = Issuer::new(ca, ca_key);
        write(folder, "ca.crt", &ca_pem);
        let accounts = KeyPair::generate().unwrap();
        write(folder, "accounts.key", &accounts.serialize_pem());
        write(folder, "accounts.pub", &accounts.public_key_pem());
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let server = CertificateParams::new(names).unwrap();
        let (certificate, key) = issue(&ca, server, "kube-apiserver", "bellhop-tests");
        write(folder, "server.crt", &certificate);
        write(folder, "server.key", &key);

        write(folder, "audit.yaml", AUDIT);

        let started = Instant::now();
        let mut plane = Self {
            folder: folder.to_owned(),
            port,
            ca,
            ca_pem,
            kubectl: programs.kubectl.clone(),
            admin: PathBuf::new(),
            programs: [
                start_etcd(folder, programs),
                start_apiserver(folder, programs, port),
            ],
        };
        plane.admin = plane.kubeconfig("admin", "system:masters");
        plane.wait(started, with_crd)?;
        println!(
            "Kubernetes {} is ready after {:.1} s",
            tools::version(),
            started.elapsed().as_secs_f32()
        );
        let _ = temporary.keep();
        Ok(plane)
    }

    /// Until the API server is ready and, if asked for, serves the CRD.
    fn wait(&mut self, started: Instant, with_crd: bool) -> Result<(), String> {
        let config = self.admin.clone();
        let mut last = String::new();
        // A thread of its own: the caller may be inside a runtime.
        std::thread::scope(|scope| {
            let work = scope.spawn(|| {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .unwrap();
                while started.elapsed() < PATIENCE {
                    for program in &mut self.programs {
                        if let Some(end) = program.ended() {
                            return Err(end);
                        }
                    }
                    match runtime.block_on(ready(&config, with_crd)) {
                        Ok(()) => return Ok(()),
                        // It has looked at the CRD and refuses it: waiting does not help.
                        Err(kube::Error::Api(status)) if status.code == 422 => {
                            return Err(status.message);
                        }
                        Err(error) => last = error.to_string(),
                    }
                    std::thread::sleep(Duration::from_millis(100));
                }
                Err(format!("not ready after {PATIENCE:?}: {last}"))
            });
            work.join().unwrap()
        })
    }

    /// The real kubectl, as an administrator.
    pub fn kubectl(&self) -> Command {
        let mut command = Command::new(&self.kubectl);
        command.env("KUBECONFIG", &self.admin);
        // Its cache of what the server offers, and its preferences, are not the user's.
        command.env("HOME", &self.folder);
        command
    }

    /// Everything that a user has called so far.
    pub fn calls(&self, user: &str) -> Vec<Call> {
        let log = std::fs::read_to_string(self.folder.join("audit.log")).unwrap_or_default();
        // The last line may be half written.
        let events = log
            .lines()
            .filter(|line| line.contains(user))
            .filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let of_user = events.filter(|event| event["user"]["username"] == user);
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        of_user
            .map(|event| {
                let object = &event["objectRef"];
                let parts = ["apiGroup", "resource", "subresource"].map(|key| text(&object[key]));
                let parts: Vec<String> =
                    parts.into_iter().filter(|part| !part.is_empty()).collect();
                let path = text(&event["requestURI"]);
                Call {
                    verb: text(&event["verb"]),
                    what: if parts.is_empty() {
                        path
                    } else {
                        parts.join("/")
                    },
                    namespace: text(&object["namespace"]),
                    code: event["responseStatus"]["code"].as_u64().unwrap_or_default(),
                }
            })
            .collect()
    }

    /// A kubeconfig for a user of a group, who can do what RBAC says.
    pub fn kubeconfig(&self, user: &str, group: &str) -> PathBuf {
        let (certificate, key) = issue(&self.ca, CertificateParams::default(), user, group);
        let credentials = json!({
            "client-certificate-data": base64(&certificate),
            "client-key-data": base64(&key)
        });
        self.kubeconfig_with(user, &credentials)
    }

    /// A kubeconfig with the token of a service account.
    pub fn kubeconfig_of_token(&self, account: &str, token: &str) -> PathBuf {
        self.kubeconfig_with(account, &json!({ "token": token }))
    }

    fn kubeconfig_with(&self, user: &str, credentials: &Value) -> PathBuf {
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test",
            "contexts": [{ "name": "test", "context": { "cluster": "test", "user": user } }],
            "clusters": [{ "name": "test", "cluster": {
                "server": format!("https://127.0.0.1:{}", self.port),
                "certificate-authority-data": base64(&self.ca_pem)
            } }],
            "users": [{ "name": user, "user": credentials }]
        });
        // KUBECONFIG is a list with colons between.
        let name = format!("{}.kubeconfig", user.replace(':', "-"));
        write(&self.folder, &name, &config.to_string());
        self.folder.join(name)
    }
}

fn base64(text: &str) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(text)
}

/// A client for a kubeconfig; it belongs to the runtime of the test that makes it.
pub async fn client(kubeconfig: &Path) -> Client {
    let config = Kubeconfig::read_from(kubeconfig).unwrap();
    let options = KubeConfigOptions::default();
    let config = Config::from_custom_kubeconfig(config, &options).await;
    Client::try_from(config.unwrap()).unwrap()
}

async fn ready(kubeconfig: &Path, with_crd: bool) -> kube::Result<()> {
    let client = client(kubeconfig).await;
    let ready = axum::http::Request::get("/readyz")
        .body(Vec::new())
        .unwrap();
    client.request_text(ready).await?;
    if !with_crd {
        return Ok(());
    }
    let crds: Api<CustomResourceDefinition> = Api::all(client.clone());
    let crd = bellhop::api::crd::crd();
    let name = crd["metadata"]["name"].as_str().unwrap();
    let apply = PatchParams::apply("bellhop-tests").force();
    crds.patch(name, &apply, &Patch::Apply(&crd)).await?;
    // Listing answers once the server serves the resource.
    let served: Api<bellhop::api::v1alpha1::WebhookSubscription> = Api::all(client);
    served.list(&kube::api::ListParams::default()).await?;
    Ok(())
}

fn start_etcd(folder: &Path, programs: &Programs) -> Supervised {
    let socket = |name: &str| format!("unix://{}", folder.join(name).display());
    let mut etcd = Command::new(&programs.etcd);
    etcd.arg("--data-dir").arg(folder.join("etcd"));
    etcd.args(["--listen-client-urls", &socket("etcd.sock")]);
    etcd.args(["--listen-peer-urls", &socket("peer.sock")]);
    // Nobody looks at it, but it must be an address.
    etcd.args(["--advertise-client-urls", "http://localhost:2379"]);
    etcd.args(["--unsafe-no-fsync", "--log-level", "warn"]);
    Supervised::start(folder, "etcd", &etcd)
}

fn start_apiserver(folder: &Path, programs: &Programs, port: u16) -> Supervised {
    let file = |name: &str| folder.join(name).display().to_string();
    let mut apiserver = Command::new(&programs.apiserver);
    for (name, value) in [
        ("--etcd-servers", format!("unix://{}", file("etcd.sock"))),
        ("--bind-address", "127.0.0.1".into()),
        ("--advertise-address", "127.0.0.1".into()),
        ("--secure-port", port.to_string()),
        ("--tls-cert-file", file("server.crt")),
        ("--tls-private-key-file", file("server.key")),
        ("--client-ca-file", file("ca.crt")),
        ("--service-account-key-file", file("accounts.pub")),
        ("--service-account-signing-key-file", file("accounts.key")),
        (
            "--service-account-issuer",
            "https://kubernetes.default.svc".into(),
        ),
        ("--service-cluster-ip-range", "10.96.0.0/16".into()),
        ("--authorization-mode", "RBAC".into()),
        ("--audit-policy-file", file("audit.yaml")),
        ("--audit-log-path", file("audit.log")),
        // In one file, however long.
        ("--audit-log-maxsize", "100000".into()),
        // Nobody runs who would make the accounts that it wants.
        ("--disable-admission-plugins", "ServiceAccount".into()),
        // Stricter than most clusters: who names an owner must have a right on it.
        (
            "--enable-admission-plugins",
            "OwnerReferencesPermissionEnforcement".into(),
        ),
    ] {
        apiserver.arg(format!("{name}={value}"));
    }
    Supervised::start(folder, "kube-apiserver", &apiserver)
}

/// Outside the range from which the kernel gives ports away, so that no test that asks for port 0
/// takes it between this look and the server's start.
pub fn free_port() -> u16 {
    std::iter::repeat_with(|| fastrand::u16(20_000..32_000))
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .unwrap()
}

fn issue(
    ca: &Issuer<'static, KeyPair>,
    mut parameters: CertificateParams,
    name: &str,
    group: &str,
) -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let who = &mut parameters.distinguished_name;
    who.push(DnType::CommonName, name);
    who.push(DnType::OrganizationName, group);
    parameters.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    let certificate = parameters.signed_by(&key, ca).unwrap();
    (certificate.pem(), key.serialize_pem())
}

fn write(folder: &Path, name: &str, text: &str) {
    std::fs::write(folder.join(name), text).unwrap();
}

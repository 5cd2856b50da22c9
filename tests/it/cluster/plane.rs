//! The control plane: etcd and kube-apiserver on loopback, with certificates of their own and RBAC
//! on. One per test process, made by the first test that asks, gone with the process.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Patch, PatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, Issuer, KeyPair};
use serde_json::json;

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
    port: u16,
    ca: Issuer<'static, KeyPair>,
    ca_pem: String,
    /// The kubectl of the same version.
    pub kubectl: PathBuf,
    /// The kubeconfig of an administrator.
    pub admin: PathBuf,
    programs: [Supervised; 2],
}

/// The control plane of this process; none, with a word, where the programs are missing.
pub fn plane() -> Option<&'static Plane> {
    static PLANE: OnceLock<Option<Result<Plane, String>>> = OnceLock::new();
    let plane = PLANE.get_or_init(|| {
        let programs = Programs {
            etcd: tools::find("etcd")?,
            apiserver: tools::kubernetes("kube-apiserver")?,
            kubectl: tools::kubernetes("kubectl")?,
        };
        Some(Plane::start(programs))
    });
    match plane {
        // Every test that is skipped says so itself.
        None => tools::kubernetes("kube-apiserver").and(None),
        Some(Ok(plane)) => Some(plane),
        Some(Err(why)) => panic!("the control plane did not start: {why}"),
    }
}

struct Programs {
    etcd: PathBuf,
    apiserver: PathBuf,
    kubectl: PathBuf,
}

impl Plane {
    fn start(programs: Programs) -> Result<Self, String> {
        // Removed here when the start fails, by the supervisors afterwards.
        let temporary = tempfile::Builder::new()
            .prefix("bellhop-plane-")
            .tempdir()
            .map_err(|error| error.to_string())?;
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
                start_etcd(folder, &programs),
                start_apiserver(folder, &programs, port),
            ],
        };
        plane.admin = plane.kubeconfig("admin", "system:masters");
        plane.wait(started)?;
        println!(
            "Kubernetes {} is ready after {:.1} s",
            tools::version(),
            started.elapsed().as_secs_f32()
        );
        let _ = temporary.keep();
        Ok(plane)
    }

    /// Until the API server is ready and serves the CRD.
    fn wait(&mut self, started: Instant) -> Result<(), String> {
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
                    match runtime.block_on(install(&config)) {
                        Ok(()) => return Ok(()),
                        Err(error) => last = error.to_string(),
                    }
                    std::thread::sleep(Duration::from_millis(100));
                }
                Err(format!("not ready after {PATIENCE:?}: {last}"))
            });
            work.join().unwrap()
        })
    }

    /// A home folder for programs that want one.
    pub fn home(&self) -> &Path {
        &self.folder
    }

    /// A kubeconfig for a user of a group, who can do what RBAC says.
    pub fn kubeconfig(&self, user: &str, group: &str) -> PathBuf {
        let (certificate, key) = issue(&self.ca, CertificateParams::default(), user, group);
        let inline = |pem: &str| {
            use base64::Engine;
            base64::engine::general_purpose::STANDARD.encode(pem)
        };
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test",
            "contexts": [{ "name": "test", "context": { "cluster": "test", "user": user } }],
            "clusters": [{ "name": "test", "cluster": {
                "server": format!("https://127.0.0.1:{}", self.port),
                "certificate-authority-data": inline(&self.ca_pem)
            } }],
            "users": [{ "name": user, "user": {
                "client-certificate-data": inline(&certificate),
                "client-key-data": inline(&key)
            } }]
        });
        let name = format!("{}.kubeconfig", user.replace([':', '/'], "-"));
        write(&self.folder, &name, &config.to_string());
        self.folder.join(name)
    }
}

/// A client for a kubeconfig; it belongs to the runtime of the test that makes it.
pub async fn client(kubeconfig: &Path) -> Client {
    let config = Kubeconfig::read_from(kubeconfig).unwrap();
    let options = KubeConfigOptions::default();
    let config = Config::from_custom_kubeconfig(config, &options).await;
    Client::try_from(config.unwrap()).unwrap()
}

async fn install(kubeconfig: &Path) -> kube::Result<()> {
    let client = client(kubeconfig).await;
    let ready = axum::http::Request::get("/readyz")
        .body(Vec::new())
        .unwrap();
    client.request_text(ready).await?;
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
    let client = format!("unix://{}", folder.join("etcd.sock").display());
    let peer = format!("unix://{}", folder.join("peer.sock").display());
    let arguments = [
        "--data-dir",
        &folder.join("etcd").display().to_string(),
        "--listen-client-urls",
        &client,
        // Nobody looks at it, but it must be an address.
        "--advertise-client-urls",
        "http://localhost:2379",
        "--listen-peer-urls",
        &peer,
        "--unsafe-no-fsync",
        "--log-level",
        "warn",
    ];
    Supervised::start(folder, &programs.etcd, &arguments)
}

fn start_apiserver(folder: &Path, programs: &Programs, port: u16) -> Supervised {
    let file = |name: &str| folder.join(name).display().to_string();
    let arguments = [
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
        // Nobody runs who would make the accounts that it wants.
        ("--disable-admission-plugins", "ServiceAccount".into()),
    ];
    let arguments: Vec<String> = arguments
        .into_iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    Supervised::start(folder, &programs.apiserver, &arguments)
}

/// Outside the range from which the kernel gives ports away, so that no test that asks for port 0
/// takes it between this look and the server's start.
fn free_port() -> u16 {
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

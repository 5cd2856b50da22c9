//! A way to the API server that can be cut.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Passes connections on; while it is cut, it drops them all.
pub struct Wire {
    address: SocketAddr,
    up: watch::Sender<bool>,
}

impl Wire {
    /// To a port of this machine.
    pub async fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (up, is_up) = watch::channel(true);
        tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                let mut is_up = is_up.clone();
                tokio::spawn(async move {
                    if !*is_up.borrow_and_update() {
                        return;
                    }
                    let mut far = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                        _ = is_up.changed() => {}
                    }
                });
            }
        });
        Self { address, up }
    }

    /// Drops what is open and refuses what comes.
    pub fn cut(&self) {
        self.up.send_replace(false);
    }

    /// Passes on again.
    pub fn mend(&self) {
        self.up.send_replace(true);
    }

    /// A kubeconfig, written beside the given one, that goes this way.
    pub fn kubeconfig(&self, direct: &Path) -> PathBuf {
        let mut file: Value = serde_json::from_slice(&std::fs::read(direct).unwrap()).unwrap();
        file["clusters"][0]["cluster"]["server"] = format!("https://{}", self.address).into();
        let path = direct.with_extension(format!("{}.kubeconfig", self.address.port()));
        std::fs::write(&path, file.to_string()).unwrap();
        path
    }
}

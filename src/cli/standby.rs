//! A receiver whose store cannot be opened: it answers what the provider tries again (503), and says
//! what it waits for.
//!
//! Owns: those answers, for as long as it takes to try again. Never here: a 200; the reason in words
//! that anybody may read (the log has them).

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::{StatusCode, header};
use serde_json::json;

use super::dataplane::Ports;
use crate::admin;
use crate::api::{Condition, ConditionType, Reason};
use crate::clock::SystemClock;
use crate::files::token::TokenFile;
use crate::metrics::Metrics;
use crate::receiver::server::{ServerOptions, serve};
use crate::settings::ReceiverConfig;
use crate::shutdown::Supervisor;

/// How long before the store is tried again.
const TRY_AGAIN: Duration = Duration::from_secs(5);

/// Stands by until it is time to try again.
///
/// # Errors
/// When the ports cannot be served.
pub async fn stand_by(config: &ReceiverConfig, ports: Ports) -> Result<(), String> {
    let mut supervisor = Supervisor::new();
    let token = supervisor.token();
    let options = ServerOptions {
        tls: config
            .process
            .tls_dir
            .as_deref()
            .map(super::receiver::tls_files),
        drain: Duration::from_secs(1),
        ..ServerOptions::default()
    };
    let inner = ServerOptions {
        tls: None,
        ..options.clone()
    };
    let refusing = || {
        Router::new().fallback(|| async {
            let later = [(header::RETRY_AFTER, TRY_AGAIN.as_secs().to_string())];
            let text = "the store is not available; try again\n";
            (StatusCode::SERVICE_UNAVAILABLE, later, text)
        })
    };
    let admin = admin(config)?;
    supervisor.spawn(
        "public port",
        serve(ports.public, refusing(), options, token.clone()),
    );
    supervisor.spawn(
        "feed port",
        serve(ports.feed, refusing(), inner.clone(), token.clone()),
    );
    supervisor.spawn(
        "admin port",
        serve(ports.admin, admin, inner, token.clone()),
    );
    supervisor.spawn("time", async move {
        tokio::time::sleep(TRY_AGAIN).await;
        token.cancel();
        Ok(())
    });
    supervisor.run_until_cancelled(TRY_AGAIN).await
}

fn admin(config: &ReceiverConfig) -> Result<Router, String> {
    let subscription = config.settings.subscription.clone();
    let unavailable = |kind| Condition::new(kind, false, Reason::StoreUnavailable);
    let conditions = [
        ConditionType::Ready,
        ConditionType::ReceiverAvailable,
        ConditionType::Delivering,
    ];
    let status = json!({
        "namespace": subscription.namespace,
        "name": subscription.name,
        "environment": subscription.environment,
        "conditions": conditions.map(unavailable),
    });
    let router = admin::router(
        Metrics::new(),
        Arc::new(|| vec!["the store, which cannot be opened; the log says why".to_owned()]),
        Arc::new(move || status.clone()),
    );
    match &config.process.admin_token_file {
        None => Ok(router),
        Some(file) => {
            let file = TokenFile::open(file.clone(), Arc::new(SystemClock::new()));
            let file = file.map_err(|error| error.to_string())?;
            Ok(admin::with_token(router, file))
        }
    }
}

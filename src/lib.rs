//! Bellhop: from a provider's data-free webhook notifications to ordered `CloudEvents`,
//! without losing one that was acknowledged.
//!
//! The crate is one package, a library and a binary. The modules stand in layers and a module
//! may name only modules to its right (`docs/architecture.md`; `tests/architecture.rs` enforces it):
//!
//! `main → cli → {controller, receiver, simulator} → {registration, pipeline} → publish → state →
//! {provider, settings} → api → admin → files →
//! {secrets, clock, metrics, telemetry, shutdown, planted}`
//!
//! What never happens in any of them: a secret outside [`secrets`]' redacting types, an unverified
//! body in a log line, metric label or the store, and a 200 to the provider before a notification
//! is durable.

pub mod admin;
pub mod api;
pub mod cli;
pub mod clock;
pub mod controller;
pub mod files;
pub mod metrics;
pub mod pipeline;
pub mod planted;
pub mod provider;
pub mod publish;
pub mod receiver;
pub mod registration;
pub mod secrets;
pub mod settings;
pub mod shutdown;
pub mod simulator;
pub mod state;
pub mod telemetry;

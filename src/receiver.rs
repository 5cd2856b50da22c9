//! The public endpoint: verifies, makes durable, answers.
//!
//! Owns: the provider's way in, from the socket to [`State::accept`](crate::state::State::accept):
//! [`server`] (connections, their limits, TLS, drain), [`ingest`] (one request, its answer;
//! with `body`, `refusal` and `repeats`),
//! [`signature`] (who sent it), [`notification`] (what it says), [`keys`] (the rules' keys),
//! `probe` (the operator's question whether the way in is open).
//!
//! Never here: a 200 before the notification is durable; a 4xx other than 408 and 429 for trouble
//! of our own; a call to anything but the store while the provider waits; a byte of an unverified
//! body in a log line, a metric or the store.

mod body;
pub mod ingest;
pub mod keys;
pub mod notification;
mod observe;
mod probe;
mod refusal;
mod repeats;
pub mod server;
pub mod signature;

pub use ingest::{Limits, Receiver, ReceiverOptions};
pub use keys::{KEY_GRACE, KeyChange, KeyRing, KeySource, Learning};
pub use observe::{ReceiverStatus, RuleStatus};
pub use server::{BodyTimeout, ServerOptions, TlsFiles, serve};

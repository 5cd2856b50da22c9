//! The behaviour of Bellhop through its public surfaces. One binary: one link.
//! Each module says what its oracle is; none of them uses the code under test as its own oracle.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod api;
mod cluster;
mod pipeline;
mod probe;
mod provider;
mod publish;
mod receiver;
mod registration;
mod simulator;
mod state;

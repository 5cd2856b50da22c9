//! The assembled program: `bellhop run` and its sisters as processes of their own, against the
//! simulated provider.
//!
//! Oracles: the design's sentences about what must happen, spelled out; the simulator's truth and
//! its record of requests and deliveries (it shares no code with what is tested); `serde_json` for
//! what is said to be JSON; the operating system's exit codes, file sizes and memory counts.

mod account;
mod cli;
mod clock;
mod demo;
mod forbidden;
mod input;
mod life;
mod manifest;
mod observe;
mod provider;
mod receiver;
mod removals;
mod rig;
mod rotation;
mod sinks;
mod storage;
mod switches;
mod timestamp;

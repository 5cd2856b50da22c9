//! The operator on the real API server, against the simulated provider. Oracle: what the simulator
//! says its registry holds, and what the API server shows.

mod backlog;
mod behaviour;
mod breaker;
mod crash;
mod deletion;
mod journey;
mod objects;
mod outage;
mod owned;
mod processes;
mod program;
mod reach;
pub mod receivers;
mod rig;
mod rotation;
mod seen;
mod status;
mod told;
mod upkeep;

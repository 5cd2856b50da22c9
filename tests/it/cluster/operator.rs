//! The operator on the real API server, against the simulated provider. Oracle: what the simulator
//! says its registry holds, and what the API server shows.

mod behaviour;
mod crash;
mod deletion;
mod journey;
mod outage;
mod processes;
mod rig;
mod status;

//! The operator on the real API server, against the simulated provider. Oracle: what the simulator
//! says its registry holds, and what the API server shows.

mod crash;
mod journey;
mod rig;

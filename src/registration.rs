//! The rules at the provider: which should be there, which are, and the way from one to the other.
//!
//! Owns: the plan (pure: desired × observed → actions with reasons), its execution in the
//! two-phase order, the drift check, who comes first when several want the same rule or URL
//! ([`conflict`]), the probe of the public URL ([`probe`]), and what may be said about it (report, `/status`, metrics).
//!
//! # What holds at every moment
//!
//! 1. **A rule is ours if and only if its URL ends in a type and our owner.** Nothing else is ever written
//!    to, unless `adoption: Always` says so.
//! 2. **A key is stored before its rule is enabled**, and the receivers have it. (A provider whose
//!    PUT makes a new key can break this for the moment of that very PUT; the new key is stored
//!    next.)
//! 3. **Any call may fail, or time out with or without effect, and the process may die between any
//!    two.** Each pass reads what is there and plans anew, after every write again; nothing is
//!    remembered in between but the stored keys. The next pass converges to one rule per type.
//! 4. **What was missed is found.** Before a rule is enabled, or a changed key of a live rule is
//!    stored, a resync of its type is noted durably ([`Resyncs`]).
//!
//! Never here: Kubernetes; a guess about who owns a rule; a key or a foreign URL in a message.

pub mod address;
pub mod channel;
pub mod check;
pub mod conflict;
pub mod drift;
pub mod execute;
mod judge;
mod metrics;
pub mod plan;
pub mod probe;
pub mod report;

pub use channel::{Channel, ChannelNote};
pub use check::{Check, Level, Resolver, SystemResolver, check, exit_code};
pub use drift::{DriftCheck, Handle, Status};
pub use execute::{Executor, GATE_TIMEOUT, Gate, KeyStore, Resyncs, StoreError};
pub use metrics::RegistrationMetrics;
pub use plan::{
    Action, Adoption, DeletionPolicy, DesiredRule, DesiredRules, Mode, Observed, Plan, Refusal,
    RulePlan, Step, plan,
};
pub use report::{Changes, Phase, Reason, Report, RuleReport, Verdict};

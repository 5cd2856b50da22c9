//! The resource `WebhookSubscription`, its rules and conditions, and the words that all layers
//! share (notification types, entity keys). No IO anywhere below this module.

pub mod condition;
pub mod crd;
pub mod entity;
pub mod manifest;
pub mod owner;
pub mod probe;
pub mod v1alpha1;
pub mod validate;

pub use condition::{Condition, ConditionStatus, ConditionType, Reason};
pub use entity::{EntityKey, NotificationType, Operation};
pub use owner::{Owner, Route};

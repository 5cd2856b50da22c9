//! The resource `WebhookSubscription`, its rules and conditions, and the words that all layers
//! share (notification types, entity keys). No IO anywhere below this module.

pub mod crd;
pub mod entity;
pub mod owner;
pub mod v1alpha1;
pub mod validate;

pub use entity::{EntityKey, NotificationType, Operation};
pub use owner::{Owner, Route};

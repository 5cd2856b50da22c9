//! Desired rules × observed rules → actions, each with its reason.
//!
//! Owns: every decision about a rule. Pure: the same input gives the same plan, and carrying a plan
//! out and planning again gives an empty one. Never here: a call, a clock, a secret's text.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde_json::{Map, Value};

pub use crate::api::v1alpha1::{Adoption, DeletionPolicy, Mode};
use crate::api::v1alpha1::{Notification, WebhookSubscriptionSpec};
use crate::api::{NotificationType, Operation, Owner};
use crate::provider::{Rule, RuleBody};
use crate::secrets::Fingerprint;

/// What should be there.
#[derive(Debug, Clone, PartialEq)]
pub struct DesiredRules {
    /// `spec.url`: https, without query or fragment; a trailing slash does not matter.
    pub url: String,
    /// Our owner: the last segment of each of our rule URLs.
    pub owner: Owner,
    /// One rule per subscribed type. Empty: none of our rules should be live.
    pub rules: BTreeMap<NotificationType, DesiredRule>,
    /// Whether the plan is carried out.
    pub mode: Mode,
    /// Whether foreign rules are overwritten.
    pub adoption: Adoption,
    /// What happens to rules of types that are not subscribed any more.
    pub deletion: DeletionPolicy,
    /// Rules stay, but disabled.
    pub suspend: bool,
    /// Types that must not go live yet: what is disabled stays so, and a stranger's rule stays
    /// theirs. What is live already is left alone.
    pub hold: BTreeSet<NotificationType>,
}

/// One subscribed type.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct DesiredRule {
    /// The operations asked for. Empty: all that the type has.
    pub operations: Vec<Operation>,
    /// Further keys of the rule's `config`. Each wins over what is at the provider; keys that are
    /// not named here stay as they are there. `null` removes a key.
    pub config: Map<String, Value>,
}

/// What is there, for one type.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Observed {
    /// The rule at the provider.
    pub rule: Option<Rule>,
    /// The key that is stored durably for this type.
    pub stored: Option<Fingerprint>,
    /// The key that the receivers are known to have loaded. Known only within a pass.
    pub loaded: Option<Fingerprint>,
}

/// One thing to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// POST, always disabled.
    Create(RuleBody),
    /// PUT over a foreign rule, always disabled.
    Adopt(RuleBody),
    /// Keep the rule's key durably.
    StoreKey,
    /// Wait until the receivers have the key.
    AwaitReceiver,
    /// PUT with `disabled: false`.
    Enable(RuleBody),
    /// PUT that leaves `disabled` as it is.
    Update(RuleBody),
    /// PUT with `disabled: true`.
    Disable(RuleBody),
    /// DELETE.
    Delete,
    /// Drop the key of a rule that is gone.
    ForgetKey,
}

impl Action {
    /// A word for metrics and messages; a small fixed set.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Create(_) => "create",
            Self::Adopt(_) => "adopt",
            Self::StoreKey => "store_key",
            Self::AwaitReceiver => "await_receiver",
            Self::Enable(_) => "enable",
            Self::Update(_) => "update",
            Self::Disable(_) => "disable",
            Self::Delete => "delete",
            Self::ForgetKey => "forget_key",
        }
    }
}

/// An action and why.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// What to do.
    pub action: Action,
    /// Why, as a sentence part without a full stop.
    pub reason: String,
}

/// Why a type cannot get where it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// The rule's URL does not end in our owner.
    RuleOwnedElsewhere {
        /// Host of the foreign URL; the rest of it may hold a secret.
        host: String,
    },
    /// The provider shows the rule without its key: signatures could not be verified.
    KeyMissing,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RuleOwnedElsewhere { host } => write!(
                f,
                "the rule belongs to someone else (it points to {host}); delete it there, or set registration.adoption: Always to take it over"
            ),
            Self::KeyMissing => f.write_str(
                "the provider shows the rule without its securityKey, so no notification could be verified; ask the provider for read access to it, or delete the rule so that it is created anew",
            ),
        }
    }
}

/// What to do for one type: nothing, when both are empty.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct RulePlan {
    /// In this order. Later steps assume that the earlier ones worked.
    pub steps: Vec<Step>,
    /// What stands in the way, beside the steps that are possible all the same.
    pub refusal: Option<Refusal>,
}

impl RulePlan {
    /// Neither a step nor a refusal.
    pub fn is_settled(&self) -> bool {
        self.steps.is_empty() && self.refusal.is_none()
    }

    fn then(&mut self, action: Action, reason: impl Into<String>) {
        self.steps.push(Step {
            action,
            reason: reason.into(),
        });
    }

    /// The steps as one sentence part: `create (there is no rule yet), store_key (…)`.
    pub fn describe(&self) -> String {
        self.steps
            .iter()
            .map(|step| format!("{} ({})", step.action.name(), step.reason))
            .collect::<Vec<_>>()
            .join(", ")
    }
}

/// What to do, per type. Types that nothing is wanted of and nothing is known about are absent.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Plan {
    /// Per type.
    pub rules: BTreeMap<NotificationType, RulePlan>,
}

impl Plan {
    /// Whether there is nothing to do and nothing in the way.
    pub fn is_settled(&self) -> bool {
        self.rules.values().all(RulePlan::is_settled)
    }
}

impl DesiredRules {
    /// What a subscription asks for, with its defaults applied. `spec` must have been validated.
    pub fn of(spec: &WebhookSubscriptionSpec, owner: Owner) -> Self {
        let wanted = |notification: Notification| {
            let rule = DesiredRule {
                operations: notification.operations(),
                config: notification.config,
            };
            (notification.kind, rule)
        };
        Self {
            url: spec.url.clone(),
            owner,
            rules: spec.notifications().into_iter().map(wanted).collect(),
            mode: spec.registration.mode,
            adoption: spec.registration.adoption,
            deletion: spec.registration.deletion_policy,
            suspend: spec.suspend,
            hold: BTreeSet::new(),
        }
    }

    /// What remains to be wanted when the subscription goes: nothing.
    pub fn none(owner: Owner, deletion: DeletionPolicy) -> Self {
        Self {
            url: String::new(),
            owner,
            rules: BTreeMap::new(),
            mode: Mode::Manage,
            adoption: Adoption::Never,
            deletion,
            suspend: false,
            hold: BTreeSet::new(),
        }
    }

    /// Whether a type's rule must not go live yet. Suspended, it must not at all.
    pub(super) fn holds(&self, kind: NotificationType) -> bool {
        self.hold.contains(&kind) && !self.suspend
    }

    /// Where notifications of `kind` should go: `url/{type}/{owner}`.
    pub fn rule_url(&self, kind: NotificationType) -> String {
        self.owner.rule_url(&self.url, kind)
    }
}

impl DesiredRule {
    /// The complete `config` to send over `observed`: unknown keys kept, ours on top, operations
    /// always explicit where the type has any and never made up where it has none.
    pub fn config_over(
        &self,
        kind: NotificationType,
        observed: &Map<String, Value>,
    ) -> Map<String, Value> {
        let mut config = observed.clone();
        for (key, value) in &self.config {
            if value.is_null() {
                config.remove(key);
            } else {
                config.insert(key.clone(), value.clone());
            }
        }
        if let Some(operations) = self.operations_of(kind) {
            let known = config.get("operations");
            if !known.is_some_and(|known| same(known, &operations)) {
                config.insert("operations".to_owned(), operations);
            }
        }
        config
    }

    fn operations_of(&self, kind: NotificationType) -> Option<Value> {
        let all = kind.operations();
        if all.is_empty() {
            return None;
        }
        let wanted = if self.operations.is_empty() {
            all
        } else {
            &self.operations
        };
        Some(wanted.iter().map(|op| op.as_str()).collect())
    }

    /// What differs, each as a word for people; empty when the rule is as it should be.
    fn drift(&self, kind: NotificationType, url: &str, rule: &Rule) -> Vec<String> {
        let mut drift = Vec::new();
        if rule.url != url {
            drift.push("url".to_owned());
        }
        let target = self.config_over(kind, &rule.config);
        for (key, value) in &target {
            if !rule.config.get(key).is_some_and(|seen| same(seen, value)) {
                drift.push(format!("config.{key}"));
            }
        }
        for key in rule.config.keys() {
            if !target.contains_key(key) {
                drift.push(format!("config.{key}"));
            }
        }
        drift
    }
}

/// Equal, where lists of plain values are compared as sets: the provider need not keep an order.
fn same(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Array(left), Value::Array(right)) if plain(left) && plain(right) => {
            left.iter().all(|value| right.contains(value))
                && right.iter().all(|value| left.contains(value))
        }
        _ => left == right,
    }
}

fn plain(values: &[Value]) -> bool {
    values
        .iter()
        .all(|value| !value.is_array() && !value.is_object())
}

/// What to do about each type. A type that is absent from `observed` could not be looked at:
/// nothing is planned for it.
pub fn plan(desired: &DesiredRules, observed: &BTreeMap<NotificationType, Observed>) -> Plan {
    Plan {
        rules: observed
            .iter()
            .map(|(kind, seen)| (*kind, plan_rule(desired, *kind, seen)))
            .collect(),
    }
}

/// What to do about one type.
pub fn plan_rule(desired: &DesiredRules, kind: NotificationType, seen: &Observed) -> RulePlan {
    let Some(wanted) = desired.rules.get(&kind) else {
        return plan_unwanted(desired, seen);
    };
    match &seen.rule {
        None => plan_missing(desired, kind, wanted),
        Some(rule) if !desired.owner.owns(&rule.url) => plan_foreign(desired, kind, wanted, rule),
        Some(rule) => plan_ours(desired, kind, wanted, rule, seen),
    }
}

fn plan_unwanted(desired: &DesiredRules, seen: &Observed) -> RulePlan {
    let mut plan = RulePlan::default();
    match &seen.rule {
        Some(rule) if desired.owner.owns(&rule.url) => match desired.deletion {
            DeletionPolicy::Delete => {
                plan.then(
                    Action::Delete,
                    "we registered it and it is not wanted any more",
                );
                if seen.stored.is_some() {
                    plan.then(Action::ForgetKey, "its rule is gone");
                }
            }
            DeletionPolicy::Retain if !rule.disabled => plan.then(
                Action::Disable(RuleBody {
                    url: rule.url.clone(),
                    disabled: true,
                    config: rule.config.clone(),
                }),
                "it is not wanted any more and deletionPolicy is Retain",
            ),
            DeletionPolicy::Retain => {}
        },
        Some(_) | None => {
            if seen.stored.is_some() && desired.deletion == DeletionPolicy::Delete {
                plan.then(Action::ForgetKey, "its rule is gone");
            }
        }
    }
    plan
}

fn plan_missing(desired: &DesiredRules, kind: NotificationType, wanted: &DesiredRule) -> RulePlan {
    let mut plan = RulePlan::default();
    let body = RuleBody {
        url: desired.rule_url(kind),
        disabled: true,
        config: wanted.config_over(kind, &Map::new()),
    };
    plan.then(
        Action::Create(body.clone()),
        "there is no rule; it starts disabled until its key is safe",
    );
    then_go_live(&mut plan, desired, kind, body);
    plan
}

fn plan_foreign(
    desired: &DesiredRules,
    kind: NotificationType,
    wanted: &DesiredRule,
    rule: &Rule,
) -> RulePlan {
    let host = host_of(&rule.url);
    let mut plan = RulePlan::default();
    match desired.adoption {
        Adoption::Never => plan.refusal = Some(Refusal::RuleOwnedElsewhere { host }),
        // Taken over, it could not go live: leave it to whoever it works for.
        Adoption::Always if rule.security_key.is_none() => {
            plan.refusal = Some(Refusal::KeyMissing);
        }
        // Nor could it go live now.
        Adoption::Always if desired.holds(kind) => {}
        Adoption::Always => {
            let body = RuleBody {
                url: desired.rule_url(kind),
                disabled: true,
                config: wanted.config_over(kind, &rule.config),
            };
            plan.then(
                Action::Adopt(body.clone()),
                format!("it points to {host} and adoption is Always"),
            );
            then_go_live(&mut plan, desired, kind, body);
        }
    }
    plan
}

fn then_go_live(
    plan: &mut RulePlan,
    desired: &DesiredRules,
    kind: NotificationType,
    mut body: RuleBody,
) {
    plan.then(Action::StoreKey, "the provider makes the key");
    if !desired.suspend && !desired.holds(kind) {
        plan.then(Action::AwaitReceiver, "receivers need the key first");
        body.disabled = false;
        plan.then(Action::Enable(body), "its key is stored and loaded");
    }
}

fn plan_ours(
    desired: &DesiredRules,
    kind: NotificationType,
    wanted: &DesiredRule,
    rule: &Rule,
    seen: &Observed,
) -> RulePlan {
    let mut plan = RulePlan::default();
    let url = desired.rule_url(kind);
    let drift = wanted.drift(kind, &url, rule);
    let differs = format!("{} differs", drift.join(", "));
    let body = |disabled| RuleBody {
        url: url.clone(),
        disabled,
        config: wanted.config_over(kind, &rule.config),
    };

    let key = rule
        .security_key
        .as_ref()
        .map(crate::secrets::Secret::fingerprint);
    match &key {
        None => plan.refusal = Some(Refusal::KeyMissing),
        Some(key) if seen.stored.as_ref() != Some(key) => plan.then(
            Action::StoreKey,
            if seen.stored.is_some() {
                "the provider has another key than we stored"
            } else {
                "the key is not stored yet"
            },
        ),
        Some(_) => {}
    }

    if desired.suspend && !rule.disabled {
        plan.then(Action::Disable(body(true)), "the subscription is suspended");
    } else if desired.suspend || desired.holds(kind) || !rule.disabled || key.is_none() {
        if !drift.is_empty() {
            plan.then(Action::Update(body(rule.disabled)), differs);
        }
    } else {
        if seen.loaded.is_none() || seen.loaded != key {
            plan.then(Action::AwaitReceiver, "receivers need the key first");
        }
        let reason = if drift.is_empty() {
            "its key is stored and loaded".to_owned()
        } else {
            format!("its key is stored and loaded; {differs}")
        };
        plan.then(Action::Enable(body(false)), reason);
    }
    plan
}

/// The host of a URL that may be anything; the only part of a foreign URL that is shown.
fn host_of(url: &str) -> String {
    reqwest::Url::parse(url)
        .ok()
        .and_then(|url| url.host_str().map(str::to_owned))
        .unwrap_or_else(|| "a URL without a host".to_owned())
}

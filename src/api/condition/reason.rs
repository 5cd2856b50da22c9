//! Why a condition is as it is: one table of everything that can be said.
//!
//! Owns: per reason, which conditions have it and with which status, when, the sentence with the
//! next step, whether work goes on, whether Ready depends on it, and the Event that tells of it.
//! The enum, `docs/conditions.md` and what the operator does come from the same rows.
//!
//! Never here: a reason without a next step (or the word that there is none to take).

use std::fmt;

use serde::{Serialize, Serializer};

use super::ConditionStatus::{False, True, Unknown};
use super::ConditionType::{
    Accepted, ClockSkew, CredentialsValid, Delivering, Reachable, Ready, ReceiverAvailable,
    Registered, WeakSignature,
};
use super::{ConditionStatus, ConditionType};

/// What goes on while a reason holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Progress {
    /// Nothing that Reconciling or Stalled would tell.
    Settled,
    /// It will end by itself: condition Reconciling, `InProgress` for kstatus.
    Reconciling,
    /// It will not, until somebody acts: condition Stalled, `Failed` for kstatus.
    Stalled,
}

/// How much an Event is to be noticed, as in Kubernetes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EventType {
    /// All is well.
    Normal,
    /// Look here.
    Warning,
}

impl EventType {
    /// As in an Event.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "Normal",
            Self::Warning => "Warning",
        }
    }
}

/// Makes the enum and its functions from the rows.
macro_rules! reasons {
    ($(
        $name:ident: [$($kind:ident = $status:ident),+], $progress:ident, $ready:ident, $event:ident,
        $when:literal,
        $says:literal;
    )+) => {
        /// Why.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Reason {
            $(#[doc = $says] $name,)+
        }

        impl Reason {
            /// Every reason.
            pub const ALL: &[Self] = &[$(Self::$name,)+];

            /// As in the resource: `RuleOwnedElsewhere`.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => stringify!($name),)+ }
            }

            /// What it means and what to do next, in plain words.
            pub const fn sentence(self) -> &'static str {
                match self { $(Self::$name => $says,)+ }
            }

            /// When it is given.
            pub const fn when(self) -> &'static str {
                match self { $(Self::$name => $when,)+ }
            }

            /// Which conditions have it, and with which status. What [`super::summary`] adds comes
            /// on top.
            pub const fn conditions(self) -> &'static [(ConditionType, ConditionStatus)] {
                match self { $(Self::$name => &[$(($kind, $status)),+],)+ }
            }

            /// What goes on while it holds.
            pub const fn progress(self) -> Progress {
                match self { $(Self::$name => Progress::$progress,)+ }
            }

            /// Whether Ready is not true while a condition is not true for this reason.
            pub const fn blocks_ready(self) -> bool {
                match self { $(Self::$name => reasons!(@ready $ready),)+ }
            }

            /// The Event that tells that a condition got this reason; `None` for what is only on
            /// its way from one to another.
            pub const fn event(self) -> Option<EventType> {
                match self { $(Self::$name => reasons!(@event $event),)+ }
            }
        }
    };
    (@ready blocks) => { true };
    (@ready keeps) => { false };
    (@event none) => { None };
    (@event normal) => { Some(EventType::Normal) };
    (@event warning) => { Some(EventType::Warning) };
}

impl Reason {
    /// Whether only an object that is being deleted has it.
    pub const fn ends(self) -> bool {
        matches!(self, Self::Deleting | Self::DeletionBlocked)
    }
}

reasons! {
    Ok: [Ready = True], Settled, keeps, normal,
        "nothing stands in the way",
        "Everything is as it should be; nothing to do.";
    SpecValid: [Accepted = True], Settled, keeps, none,
        "the spec has no mistake and its url is free",
        "The spec is valid and conflicts with nothing.";
    Suspended: [Registered = True], Settled, keeps, normal,
        "`spec.suspend` is true and the rules are disabled",
        "Suspended: the rules are disabled. To go on, set `suspend: false`; what happened meanwhile is then found by a full comparison.";
    Paused: [Accepted = Unknown], Stalled, blocks, normal,
        "the annotation is set; the other conditions stay as they were",
        "The annotation bellhop.dev/paused is set: nothing is touched. To go on, remove it.";
    Deleting: [Registered = False], Reconciling, blocks, normal,
        "the object is being deleted and its rules are not verified gone",
        "The rules are being removed at the provider; wait.";
    DeletionBlocked: [Registered = False], Reconciling, blocks, warning,
        "the object is being deleted and the provider does not let its rules go",
        "The rules cannot be removed at the provider, and this object stays until they are. It is tried again by itself; to leave the rules behind, patch registration.deletionPolicy to Retain.";

    Invalid: [Accepted = False], Stalled, blocks, warning,
        "the spec breaks a rule that the API server could not check",
        "The spec is wrong. Correct the fields that are named here.";
    UrlInUse: [Accepted = False], Stalled, blocks, warning,
        "another subscription has a rule below the same host and path, or none has one and the other is older",
        "Another subscription has the same host and path in its url. Give one of them another url.";

    SecretMissing: [CredentialsValid = False], Reconciling, blocks, warning,
        "the Secret, or a key in it, is not there; it is watched for",
        "The Secret of credentialsSecretRef is not there or lacks apiKey or apiSecret. Create it with both keys.";
    SecretForbidden: [CredentialsValid = Unknown], Reconciling, blocks, warning,
        "the API server refuses the Secret to the operator",
        "The operator may not read the Secret of credentialsSecretRef. Grant it the Role for this namespace; it is tried again by itself.";
    CredentialsAccepted: [CredentialsValid = True], Settled, keeps, normal,
        "the provider answered a call with them",
        "The provider accepts the credentials.";
    CredentialsUnchecked: [CredentialsValid = Unknown], Reconciling, blocks, none,
        "no call has been answered yet",
        "The provider has not been asked yet whether it accepts the credentials; wait.";
    Unauthorized: [CredentialsValid = False, Registered = False], Stalled, blocks, warning,
        "the provider answered 401 or 403",
        "The provider refuses the credentials. Put valid keys into the Secret; to delete this object without them, first patch registration.deletionPolicy to Retain.";

    RulesInPlace: [Registered = True], Settled, keeps, normal,
        "each wanted rule is enabled with its key stored, and no other is there",
        "All rules are at the provider as they should be.";
    RegistrationPending: [Registered = False, Registered = Unknown], Reconciling, blocks, none,
        "the rules have not been looked at yet, or are being written",
        "Rules are being written; wait.";
    AwaitingReachability: [Registered = False], Reconciling, blocks, normal,
        "`registration.reachability` is Require, rules are created, and the probe has not come back",
        "The rules stay disabled until url is reachable, as registration.reachability says. See the condition Reachable for what is in the way.";
    RotatingKeys: [Registered = False], Reconciling, blocks, normal,
        "a new value of bellhop.dev/rotate-keys is being acted on",
        "The keys are being changed: each rule is made anew, and its type is compared in full after that; wait.";
    KeysRotated: [Registered = True], Settled, keeps, normal,
        "a rotation that bellhop.dev/rotate-keys asked for is through; stays until another reason comes",
        "All rules are at the provider as they should be, with new keys. What happened while a rule was made anew is found by a full comparison of its type; nothing to do.";
    ProviderUnavailable: [Registered = Unknown, Registered = False, CredentialsValid = Unknown], Reconciling, blocks, warning,
        "timeout, connection error, 429 or 5xx",
        "The provider does not answer as it should. It is tried again by itself; if it lasts, ask the provider.";
    ProviderRefused: [Registered = False], Stalled, blocks, warning,
        "the provider answers a write with another 4xx",
        "The provider refuses a rule as it is written. Correct the config of the type that is named here, or ask the provider.";
    TypeUnsupported: [Registered = False], Stalled, blocks, warning,
        "the registry knows no path for a type",
        "The provider knows no rules of a subscribed type. Remove the type from notifications, or ask the provider.";
    RuleOwnedElsewhere: [Registered = False], Stalled, blocks, warning,
        "a rule's URL does not end in our owner, and adoption is Never",
        "The provider has a rule that is not ours; it was not touched. Remove it there, or set `registration.adoption: Always` to take it over.";
    TypeClaimedElsewhere: [Registered = False], Stalled, blocks, warning,
        "one rule per account and type, and another subscription has the rule, or none has it and the other is older",
        "Another subscription with the same environment and API key has a notification type already. Remove the type from one of them.";
    ChannelChanged: [Registered = False], Stalled, blocks, warning,
        "new credentials find none of our rules where some were registered",
        "The new credentials belong to an account that has none of our rules. If that is meant, set a new value of the annotation bellhop.dev/reconcile-at; else put the old keys back.";
    KeyMissing: [Registered = False], Stalled, blocks, warning,
        "the provider shows a rule without its key",
        "The provider does not show a rule's key, so its notifications could not be verified. Set a new value of the annotation bellhop.dev/rotate-keys to have the rule made anew.";
    KeyNotStored: [Registered = False], Reconciling, blocks, warning,
        "the write of the Secret or file with the keys failed",
        "A rule's key could not be stored, so the rule was not enabled. It is tried again by itself; check the rights to write the Secret that holds the keys.";
    ObserveOnly: [Registered = False], Settled, blocks, normal,
        "`registration.mode` is Observe and something would be written",
        "registration.mode is Observe: what would be done is said here, nothing is written. Set it to Manage to write.";
    DriftFound: [Registered = False], Reconciling, blocks, warning,
        "a rule differs from what was written, or changes under our hands",
        "A rule was changed at the provider by someone else. It is corrected by itself; find out who writes it.";
    KeysNotLoaded: [Registered = False, ReceiverAvailable = False], Reconciling, blocks, warning,
        "not all ready receivers report a key's fingerprint after three minutes",
        "The receivers have not loaded the rules' keys after three minutes. Look at their pods and at the mounted Secret.";

    ReceiverReady: [ReceiverAvailable = True], Settled, keeps, normal,
        "at least one receiver is ready, and all ready ones have the keys",
        "The receivers are ready.";
    ReceiverNotReady: [ReceiverAvailable = False, Delivering = Unknown], Reconciling, blocks, warning,
        "no receiver is ready",
        "No receiver is ready. Look at the pods and their events.";
    ObjectRefused: [ReceiverAvailable = False, Delivering = Unknown], Reconciling, blocks, warning,
        "the API server does not take an object that the receivers need, its name is taken, or the cluster does not know its kind",
        "An object of the receivers cannot be written. Correct what is named here; it is tried again by itself.";
    RolloutInProgress: [ReceiverAvailable = False, Delivering = Unknown], Reconciling, blocks, normal,
        "pods of an older version are being replaced, and none is ready",
        "The receivers are being replaced; wait.";
    ReceiverUnreachable: [ReceiverAvailable = Unknown, Delivering = Unknown], Reconciling, blocks, warning,
        "the admin port of no receiver answers the operator",
        "The receivers cannot be asked how they are. Check that the operator may reach their admin port; one outside of the cluster needs --receiver-access=proxy.";
    ReceiverNotManaged: [ReceiverAvailable = Unknown, Delivering = Unknown], Settled, keeps, none,
        "the operator has no image to run receivers with, or `registration.mode` is Observe",
        "The operator runs no receivers for this subscription: it was started without --receiver-image, or registration.mode is Observe. Without receivers of its own, run what receives at url yourself; the rules' keys are in the Secret NAME-bellhop.";

    Reachable: [Reachable = True], Settled, keeps, normal,
        "the probe came back, signed by our receiver",
        "The probe came back through the public url.";
    ProbeOff: [Reachable = Unknown], Settled, keeps, none,
        "`registration.reachability` is Off, or `registration.mode` is Observe",
        "registration.reachability is Off, or registration.mode is Observe; nobody looks.";
    ProbePending: [Reachable = Unknown], Settled, keeps, none,
        "no probe has ended yet",
        "The probe has not come back yet; wait.";
    ProbeBusy: [Reachable = Unknown], Settled, keeps, none,
        "our receiver, or what stands before it, answers the probe with 429",
        "Too much traffic at url to let the probe through; it is sent again by itself.";
    NameNotResolved: [Reachable = False], Settled, keeps, warning,
        "DNS knows no such name, or no address for it",
        "The host of url has no address. Create the DNS record.";
    NameLookupFailed: [Reachable = Unknown], Settled, keeps, warning,
        "DNS gave no answer in time",
        "The host of url could not be looked up from the operator. Check the cluster's DNS; it is tried again by itself.";
    AddressRefused: [Reachable = False], Settled, keeps, warning,
        "no address of the host is public",
        "The host of url has no public address, only private, loopback, link-local or reserved ones, which the provider cannot reach. Use a public one; for a test inside a network, start the operator with --probe-private.";
    ConnectionRefused: [Reachable = False], Settled, keeps, warning,
        "the host refuses the connection",
        "The host of url refuses connections at that port. Check that the load balancer listens there, and the port in url.";
    ConnectionTimedOut: [Reachable = False], Settled, keeps, warning,
        "no answer to the attempt to connect",
        "The host of url does not answer attempts to connect. Check firewalls and the load balancer's address.";
    ConnectionFailed: [Reachable = False], Settled, keeps, warning,
        "no route to the host, or the connection breaks off",
        "The connection to url cannot be made or breaks off. Check the network's routes, and that the port in url speaks HTTPS.";
    CertificateExpired: [Reachable = False], Settled, keeps, warning,
        "the time of the certificate is over, or has not begun",
        "The certificate at url is not valid at this time. Renew it, or correct the clock of whoever issued it.";
    CertificateWrongName: [Reachable = False], Settled, keeps, warning,
        "the certificate is for other names",
        "The certificate at url is for another host. Install one with the host of url in it, or route the host to the right listener.";
    CertificateUntrusted: [Reachable = False], Settled, keeps, warning,
        "no known authority stands behind the certificate",
        "The certificate at url is not from a public authority, or its chain is incomplete. Install one that is, with all intermediate certificates.";
    TlsFailed: [Reachable = False], Settled, keeps, warning,
        "the TLS handshake fails for another cause",
        "TLS with url fails before a certificate is accepted. Check that the port speaks TLS 1.2 or 1.3.";
    AnswerTimedOut: [Reachable = False], Settled, keeps, warning,
        "connected, and no whole answer in time",
        "url takes the connection and does not answer in time. Check the proxy and the way from it to the receiver's Service.";
    Redirected: [Reachable = False], Settled, keeps, warning,
        "a 3xx; redirects are not followed, as the provider follows none",
        "url answers with a redirect, which notifications do not follow. Put the final address into url, or route without redirecting.";
    AccessRefused: [Reachable = False], Settled, keeps, warning,
        "a 401, 403 or 407 that is not our receiver's",
        "Something before the receiver asks for a login or refuses the request. Let requests to url pass; the receiver checks signatures itself.";
    PathNotRouted: [Reachable = False], Settled, keeps, warning,
        "a 404 or 410 that is not our receiver's",
        "Something answers at url, but knows no such path. Route the path, and all below it, to the receiver's Service.";
    PathRewritten: [Reachable = False], Settled, keeps, warning,
        "our receiver got the probe, under a path that names no rule",
        "The path arrives changed at the receiver, so that its end no longer names the type. Let the proxy keep what follows the path of url.";
    BackendUnavailable: [Reachable = False], Settled, keeps, warning,
        "a 502, 503 or 504",
        "A proxy at url finds no receiver behind it. Check that the receiver's Service has ready endpoints, and the proxy's route to it.";
    ProbeKeyMissing: [Reachable = False], Settled, keeps, warning,
        "our receiver says that it has no key for the probe",
        "The receiver at url has not loaded its keys. Look at its pods and at the mounted Secret.";
    AnotherReceiver: [Reachable = False], Settled, keeps, warning,
        "a receiver got the probe that has another key: another subscription's, or one with an old Secret",
        "The receiver at url is another subscription's, or has not loaded the newest keys. Check that the path is routed to this subscription's Service.";
    WrongAnswer: [Reachable = False], Settled, keeps, warning,
        "any other answer without our receiver's signature",
        "Something else answers at url. Check the routing of host and path to the receiver's Service.";

    DeliveryOk: [Delivering = True], Settled, keeps, normal,
        "no sink is unwell and nothing is held back",
        "Events reach all sinks.";
    SinkUnavailable: [Delivering = False], Settled, blocks, warning,
        "a sink refuses or fails; see how sinks are judged in the operations manual",
        "A sink is not well; its events wait. Check the sink that is named here.";
    DeadLetters: [Delivering = False], Settled, keeps, warning,
        "there are dead letters",
        "Items gave up and are kept. Look at the reason of each, correct it, then replay them.";
    FetchPaused: [Delivering = False], Stalled, blocks, warning,
        "the reseller API answered 401 or 403",
        "Reading from the provider is paused, because it refuses the credentials. Put valid keys into the Secret.";
    RemovalGuard: [Delivering = False], Settled, blocks, warning,
        "removals are held back",
        "More entities vanished at once than fetch.removalGuard allows; they are held back. GET /removals on the admin port shows them; if it is right, POST /removals/confirm there; it is also believed after an hour of agreement.";
    StoreFull: [Delivering = False], Settled, blocks, warning,
        "the store has used its size",
        "The store is full. Raise state.embedded.size, or shorten state.retention.";
    StoreUnavailable: [Delivering = False, ReceiverAvailable = False], Reconciling, blocks, warning,
        "the store cannot be written or read",
        "The store cannot be used; notifications are answered with 503 and come again. Look at the receiver's log.";
    BacklogFull: [ReceiverAvailable = False], Settled, blocks, warning,
        "the backlog is at its bound",
        "Too many entities wait to be read; notifications are answered with 429 and come again. Raise fetch.requestsPerSecond if the provider allows it.";

    Md5InUse: [WeakSignature = True], Settled, keeps, warning,
        "the newest authentic notification of a rule is signed with MD5",
        "Notifications are signed with MD5. Ask the provider for HMAC-SHA256, then set `signature.scheme: HmacSha256`.";
    ClockDiffers: [ClockSkew = True], Settled, keeps, warning,
        "an authentic notification is further in the future than signature.maxSkew",
        "The provider's clock and ours differ by more than signature.maxSkew. Synchronise this machine's clock; if it is right, ask the provider.";
}

impl Reason {
    /// The reason with this name; `None` for one that this version does not know.
    pub fn parse(name: &str) -> Option<Self> {
        let mut all = Self::ALL.iter().copied();
        all.find(|reason| reason.as_str() == name)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for Reason {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

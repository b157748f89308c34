//! Feature negotiation (runtime-protocol section 6.2).

use serde::{Serialize, Serializer};

macro_rules! features {
    ($($(#[$doc:meta])* $variant:ident = $text:literal;)*) => {
        /// A feature this version knows.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Feature {
            $($(#[$doc])* $variant,)*
        }

        impl Feature {
            /// All eleven, in the order of the protocol.
            pub const ALL: [Feature; 11] = [$(Feature::$variant,)*];

            /// The name on the wire.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Feature::$variant => $text,)*
                }
            }

            /// The feature of this name; names compare byte for byte.
            pub fn parse(name: &str) -> Option<Feature> {
                match name {
                    $($text => Some(Feature::$variant),)*
                    _ => None,
                }
            }
        }
    };
}

features! {
    /// Pings (6.4).
    Heartbeat = "heartbeat";
    /// Acknowledged events (6.5).
    Ack = "ack";
    /// Job listings (6.6).
    ListJobs = "list_jobs";
    /// Subscriptions to the jobs of others (7.6).
    Subscribe = "subscribe";
    /// `name@version` (7.5).
    AgentVersions = "agent_versions";
    /// Leases that end (9.5).
    LeaseExpiresAt = "lease_expires_at";
    /// Spending limits (9.6).
    CostBudget = "cost.budget";
    /// Model restrictions (9.7).
    ModelUse = "model.use";
    /// Credentials made for a job (9.8).
    ProvisionedCredentials = "provisioned_credentials";
    /// Progress events (8.2.1).
    Progress = "progress";
    /// Results in pieces (8.4).
    ResultChunk = "result_chunk";
}

/// What both sides of this implementation offer unless told otherwise.
///
/// `provisioned_credentials` is left out: it needs revocation that survives a restart (R-9.8.2.6).
pub const CLIENT_DEFAULT: [Feature; 10] = [
    Feature::Heartbeat,
    Feature::Ack,
    Feature::ListJobs,
    Feature::Subscribe,
    Feature::LeaseExpiresAt,
    Feature::CostBudget,
    Feature::Progress,
    Feature::ResultChunk,
    Feature::AgentVersions,
    Feature::ModelUse,
];

/// The nine features of v1.1 in the README's order (D-30).
pub const V1_1_FEATURES: [Feature; 9] = [
    Feature::Heartbeat,
    Feature::Ack,
    Feature::ListJobs,
    Feature::Subscribe,
    Feature::AgentVersions,
    Feature::LeaseExpiresAt,
    Feature::CostBudget,
    Feature::Progress,
    Feature::ResultChunk,
];

/// The features on both lists, in the client's order and without doubles.
///
/// Names neither side's code knows take part, so that vendor features can be negotiated.
pub fn intersect(client: &[String], runtime: &[String]) -> Vec<String> {
    let mut both: Vec<String> = Vec::new();
    for name in client {
        if runtime.contains(name) && !both.contains(name) {
            both.push(name.clone());
        }
    }
    both
}

/// The features in effect on a session, in the client's order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FeatureSet {
    names: Vec<String>,
    known: u16,
}

impl FeatureSet {
    /// The set of these names; doubles are dropped, unknown names kept.
    pub fn new<T: AsRef<str>>(names: impl IntoIterator<Item = T>) -> FeatureSet {
        let mut set = FeatureSet::default();
        for name in names {
            let name = name.as_ref();
            if set.has_name(name) {
                continue;
            }
            if let Some(feature) = Feature::parse(name) {
                set.known |= bit(feature);
            }
            set.names.push(name.to_owned());
        }
        set
    }

    /// What a client's and a runtime's list have in common, see [`intersect`].
    pub fn negotiate(client: &[String], runtime: &[String]) -> FeatureSet {
        FeatureSet::new(intersect(client, runtime))
    }

    /// Whether the feature is in effect.
    pub fn has(&self, feature: Feature) -> bool {
        self.known & bit(feature) != 0
    }

    /// Whether a feature of this name is in effect, known or not.
    pub fn has_name(&self, name: &str) -> bool {
        match Feature::parse(name) {
            Some(feature) => self.has(feature),
            None => self.names.iter().any(|known| known == name),
        }
    }

    /// The names in order.
    pub fn names(&self) -> &[String] {
        &self.names
    }
}

const fn bit(feature: Feature) -> u16 {
    1 << feature as u16
}

impl FromIterator<Feature> for FeatureSet {
    fn from_iter<I: IntoIterator<Item = Feature>>(features: I) -> FeatureSet {
        FeatureSet::new(features.into_iter().map(Feature::as_str))
    }
}

impl Serialize for FeatureSet {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.names.serialize(serializer)
    }
}

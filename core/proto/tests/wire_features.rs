//! Feature negotiation against the corpus and random lists.
#![allow(clippy::unwrap_used, clippy::panic)]

use arcp_proto::feature::{CLIENT_DEFAULT, Feature, FeatureSet, V1_1_FEATURES, intersect};
use proptest::prelude::*;
use serde_json::Value;

const CORPUS: &str = include_str!("../../../tests/corpus/wire/features.json");

fn names(value: &Value) -> Vec<String> {
    value.as_array().map_or(vec![], |list| list.iter().map(|name| name.as_str().unwrap().to_owned()).collect())
}

#[test]
fn corpus() {
    let corpus: Value = serde_json::from_str(CORPUS).unwrap();
    let (mut flags, mut lists) = (0, 0);
    for case in corpus["cases"].as_array().unwrap() {
        let id = &case["id"];
        if let Some(name) = case["given"]["name"].as_str() {
            assert_eq!(Feature::ALL[flags].as_str(), name, "{id}");
            let feature = Feature::parse(name).unwrap();
            assert_eq!(case["expect"]["advertise"], CLIENT_DEFAULT.contains(&feature), "{id}");
            assert_eq!(case["expect"]["in_readme"], V1_1_FEATURES.contains(&feature), "{id}");
            flags += 1;
        } else {
            let both = intersect(&names(&case["given"]["client"]), &names(&case["given"]["runtime"]));
            assert_eq!(names(&case["expect"]["negotiated"]), both, "{id}");
            lists += 1;
        }
    }
    assert_eq!((flags, lists), (11, 10));
}

#[test]
fn the_default_offer_keeps_its_order() {
    let offer: FeatureSet = CLIENT_DEFAULT.into_iter().collect();
    let expected =
        "heartbeat ack list_jobs subscribe lease_expires_at cost.budget progress result_chunk agent_versions model.use";
    assert_eq!(offer.names().join(" "), expected);
    assert!(!offer.has(Feature::ProvisionedCredentials));
}

proptest! {
    #[test]
    fn a_set_has_what_both_lists_have(
        client in proptest::collection::vec("ack|progress|heartbeat|model.use|x-vendor.a|b", 0..8),
        runtime in proptest::collection::vec("ack|progress|heartbeat|model.use|x-vendor.a|b", 0..8),
    ) {
        let set = FeatureSet::negotiate(&client, &runtime);
        for name in client.iter().chain(&runtime) {
            let both = client.contains(name) && runtime.contains(name);
            prop_assert_eq!(set.has_name(name), both);
            prop_assert_eq!(set.names().iter().filter(|held| *held == name).count(), usize::from(both));
            if let Some(feature) = Feature::parse(name) {
                prop_assert_eq!(set.has(feature), both);
            }
        }
    }
}

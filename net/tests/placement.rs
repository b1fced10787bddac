//! The container assignment against vectors of the original.

use serde_json::Value;
use thalweg_net::{Placement, colocation_name};

fn vectors(name: &str) -> Value {
    let path = format!("{}/tests/golden/{name}", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(path).expect("the vectors are in the tree");
    serde_json::from_str(&text).expect("the vectors are JSON")
}

/// Each name lands where the original puts it, for every number of containers that fits a shard.
#[test]
fn containers_are_those_of_the_original() {
    let mut checked = 0;
    for vector in vectors("container-mapping.json")["containers"].as_array().expect("a list") {
        let segment = vector["segment"].as_str().expect("a name");
        for (count, container) in vector["container_by_count"].as_object().expect("a map") {
            let count: u16 = count.parse().expect("a number");
            let placement = Placement::new(count, count);
            let expected = container.as_u64().expect("a number");
            assert_eq!(u64::from(placement.container(segment).0), expected, "{segment} of {count}");
            checked += 1;
        }
    }
    assert_eq!(checked, 80);
}

/// A stream segment, its transactions and other epochs of its number share a colocation name.
#[test]
fn names_of_one_segment_are_colocated() {
    let mut checked = 0;
    for vector in vectors("segment-names.json")["segments"].as_array().expect("a list") {
        let number = &vector["number"];
        let names = vector.as_object().expect("a map");
        let of = |part: &str| {
            let (_, name) = names.iter().find(|(key, _)| key.starts_with(part)).expect(part);
            colocation_name(name.as_str().expect("a name"))
        };
        assert_eq!(of("stream_segment"), format!("scope/stream/{number}"));
        assert_eq!(of("transaction_segment"), of("stream_segment"));
        assert_eq!(of("table_segment"), format!("scope/table_kvtable/{number}"));
        checked += 1;
    }
    assert!(checked > 3);
}

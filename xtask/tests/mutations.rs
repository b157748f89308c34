//! The list of mutations names what exists and covers the contract; `cargo xtask mutations` runs it.

use xtask::{mutations, root};

#[test]
fn every_section_has_a_mutation_and_every_mutation_its_place() {
    let list = mutations::load(&root()).unwrap();
    assert_eq!(mutations::faults(&root(), &list).unwrap(), [""; 0]);
}

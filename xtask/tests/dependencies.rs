//! The house keeps its shape: directions of dependency, a core without IO, `unsafe` at the border only.

use xtask::{house, root};

#[test]
fn dependencies_point_one_way() {
    assert_eq!(house::wrong_imports(&root()).unwrap(), [""; 0]);
}

#[test]
fn proto_reaches_no_io_no_clock_no_randomness() {
    assert_eq!(house::proto_reaches(&root()).unwrap(), [""; 0]);
}

#[test]
fn proto_names_no_io_no_clock_no_threads() {
    assert_eq!(house::proto_names(&root()).unwrap(), [""; 0]);
}

#[test]
fn nothing_outside_the_bindings_is_unsafe() {
    assert_eq!(house::unsafe_outside_bindings(&root()).unwrap(), [""; 0]);
}

#[test]
fn one_crypto_backend_is_linked() {
    assert_eq!(house::second_crypto_backend(&root()).unwrap(), [""; 0]);
}

//! An address whose cargo feature was left out is refused with the feature's name, and only such an address. The step
//! `features` of `cargo xtask test` runs this without features, all other builds with the default ones.

use upcie_core::open;

#[test]
fn an_address_names_the_feature_that_was_left_out() {
    let error = open(&"vfio-user:/nowhere/at/all".parse().unwrap()).unwrap_err();
    let names_it = error.to_string().contains("without the feature `vfio-user-client`");
    assert_eq!(names_it, !cfg!(feature = "vfio-user-client"), "{error}");
}

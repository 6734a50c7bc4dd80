//! An address whose cargo feature was left out is refused with the feature's name, and only such an address. The step
//! `features` of `cargo xtask test` runs this without features, all other builds with the default ones.

use upcie_core::{device::Address, open};

#[test]
fn an_address_names_the_feature_that_was_left_out() {
    let addresses = [
        ("uio:ffff:ff:1f.7", "uio", cfg!(feature = "uio")),
        ("sysfs:ffff:ff:1f.7", "uio", cfg!(feature = "uio")),
        ("vfio-user:/nowhere/at/all", "vfio-user-client", cfg!(feature = "vfio-user-client")),
    ];
    for (address, feature, is_built) in addresses {
        let error = open(&address.parse::<Address>().unwrap()).unwrap_err();
        let names_it = error.to_string().contains(&format!("without the feature `{feature}`"));
        assert_eq!(names_it, !is_built, "{error}");
    }
}

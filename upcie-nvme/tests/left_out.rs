//! An address whose cargo feature was left out is refused with the feature's name, and only such an address. The step
//! `features` of `cargo xtask test` runs this without features, all other builds with the default ones.

use upcie_nvme::{Address, Controller};

#[test]
fn without_its_feature_emu_is_refused_with_the_reason() {
    for text in ["emu", "emu:size=1M"] {
        let address = text.parse::<Address>();
        assert_eq!(address.is_ok(), cfg!(feature = "emu"), "{address:?}");
        if let Err(error) = address {
            assert!(error.to_string().contains("without the feature `emu`"), "{error}");
        }
    }
}

#[test]
fn without_its_feature_vfio_user_is_refused_with_the_reason() {
    let error = Controller::open("vfio-user:/nowhere/at/all").unwrap_err();
    let names_it = error.to_string().contains("without the feature `vfio-user-client`");
    assert_eq!(names_it, !cfg!(feature = "vfio-user"), "{error}");
}

//! Atomic writes: the units that a controller reports, and writes that are refused because it would not have them as a whole.

use upcie_nvme::{Controller, Error, Failure, Refusal};
use upcie_tests::says;

#[track_caller]
fn refused(error: &Error, wanted: Refusal) {
    assert!(matches!(error.failure(), Failure::Refused { reason, .. } if *reason == wanted), "{error}");
}

#[test]
fn a_write_is_one_atomic_command_or_refused() {
    let options = "size=4M,mdts=16K,awun=64,awupf=16,nabsn=128,nabspf=128,nabo=4,serial=ATOMIC";
    let controller = Controller::open(format!("emu:{options}")).unwrap();
    let namespace = controller.namespace(1).unwrap();
    let units = namespace.atomic_units();
    assert_eq!((units.normal.blocks(), units.power_fail.blocks()), (64, 16));
    assert_eq!(units.power_fail.boundary(), Some((4, 128)));
    let mut data = controller.alloc(16 * 512).unwrap();
    data.fill(7);
    for slba in [4, 5, 116] {
        namespace.write_atomic(slba, &mut data, &units.power_fail).unwrap();
        let mut read = controller.alloc(16 * 512).unwrap();
        namespace.read(slba, &mut read).unwrap();
        assert!(read.to_vec() == data.to_vec(), "block {slba}");
    }
    // Across the boundaries at blocks 4 and 132.
    for slba in [0, 117] {
        let error = namespace.write_atomic(slba, &mut data, &units.power_fail).unwrap_err();
        refused(&error, Refusal::NotAtomic);
        let what = format!("Write (01h) of 8192 bytes at block {slba} of namespace 1 was not sent");
        says(&error, &[&what, "atomic_units"]);
    }
    let mut more = controller.alloc(17 * 512).unwrap();
    refused(&namespace.write_atomic(8, &mut more, &units.power_fail).unwrap_err(), Refusal::NotAtomic);
    namespace.write_atomic(8, &mut more, &units.normal).unwrap();
    // Two commands.
    let mut long = controller.alloc(64 * 512).unwrap();
    refused(&namespace.write_atomic(8, &mut long, &units.normal).unwrap_err(), Refusal::TooLong);
    // A whole number of boundaries behind the first one.
    let end = namespace.blocks() + 4;
    refused(&namespace.write_atomic(end, &mut data, &units.power_fail).unwrap_err(), Refusal::OutOfRange);
}

#[test]
fn namespaces_have_units_of_their_own_or_the_controllers() {
    let units = |options: &str| {
        let controller = Controller::open(format!("emu:size=1M,serial=UNITS,{options}")).unwrap();
        let units = controller.namespace(1).unwrap().atomic_units();
        (units.normal.blocks(), units.power_fail.blocks(), units.normal.boundary())
    };
    assert_eq!(units("awun=8,nawun=32"), (32, 1, None));
    assert_eq!(units("awun=8,awupf=4,nawupf=2"), (8, 2, None));
    assert_eq!(units("lba=4096"), (1, 1, None));
}

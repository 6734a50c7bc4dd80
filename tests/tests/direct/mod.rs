//! Support code of the suites over functions without an IOMMU: their drivers and their command register.
#![allow(dead_code, reason = "each suite uses a part of it")]

use upcie_core::{
    device::Address,
    pci::{Bdf, Binder, ConfigSpace, Function},
};

pub const BDF: &str = "0000:01:00.0";
pub const OTHER: &str = "0000:02:00.0";
pub const UIO: &str = "uio_pci_generic";

pub fn bdf() -> Bdf {
    BDF.parse().unwrap()
}

pub fn function() -> Function {
    Function::at(bdf()).unwrap()
}

/// Binds the function to the driver of a scheme.
pub fn prepare(scheme: &str) -> Address {
    bind(BDF, if scheme == "uio" { Some(UIO) } else { None });
    format!("{scheme}:{BDF}").parse().unwrap()
}

pub fn bind(bdf: &str, driver: Option<&str>) {
    let function = Function::at(bdf.parse().unwrap()).unwrap();
    match driver {
        Some(driver) => Binder::new().bind(&function, driver).unwrap(),
        None => Binder::new().unbind(&function).unwrap(),
    }
}

pub fn command_register() -> u16 {
    function().config().unwrap().command().unwrap()
}

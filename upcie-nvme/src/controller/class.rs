//! Is a PCI function an NVMe controller at all?

use crate::{Error, Result};
use upcie_core::{device::Address, pci::Function};

/// Refuses a function of another class, before any advice on how to bind it: that would be wrong for it. A function that
/// is not there is left to the transport, which says so.
pub(crate) fn check(address: &Address) -> Result<()> {
    match address.bdf().map(Function::at) {
        Some(Ok(function)) if !function.is_nvme() => Err(refused(address, function.class)),
        _ => Ok(()),
    }
}

fn refused(address: &Address, class: u32) -> Error {
    let reason = "an NVMe controller's 0108xx (`upcie list` shows those of this machine)";
    Error::unsupported(address.without_token().to_string(), format!("its class is {class:06x}, and {reason}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use upcie_core::pci::functions;

    /// The suite `guest_edu` opens a function of another class; this machine may have none.
    #[test]
    fn another_function_is_refused_by_its_class() {
        let bdf = "0000:00:1f.0".parse().unwrap();
        for address in [Address::Pci(bdf), Address::Sysfs(bdf)] {
            let text = refused(&address, 0x06_01_00).to_string();
            for part in ["0000:00:1f.0", "its class is 060100", "0108xx", "upcie list"] {
                assert!(text.contains(part), "{part}: {text}");
            }
        }
        for function in functions().unwrap_or_default() {
            let refused = check(&Address::Pci(function.bdf)).is_err();
            assert_eq!(refused, !function.is_nvme(), "{}: {:06x}", function.bdf, function.class);
        }
        check(&Address::VfioUser("/run/x".into())).unwrap();
    }
}

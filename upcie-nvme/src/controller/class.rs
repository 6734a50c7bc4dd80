//! Is a PCI function an NVMe controller at all?

use crate::{Error, Result};
use upcie_core::{device::Address, pci::Function};

/// Refuses a function of another class, before any advice on how to bind it: that would be wrong for it. A function that
/// is not there is left to the transport, which says so.
pub(crate) fn check(address: &Address) -> Result<()> {
    match address.bdf().map(Function::at) {
        Some(Ok(function)) if !function.is_nvme() => Err(Error::unsupported(
            address.without_token().to_string(),
            format!(
                "its class is {:06x}, and an NVMe controller's 0108xx (`upcie list` shows those of this machine)",
                function.class
            ),
        )),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use upcie_core::pci::functions;

    #[test]
    fn another_function_is_refused_by_its_class() {
        // A machine without PCI has nothing to refuse.
        for function in functions().unwrap_or_default().into_iter().filter(|function| !function.is_nvme()) {
            for address in [Address::Pci(function.bdf), Address::Sysfs(function.bdf)] {
                let text = check(&address).unwrap_err().to_string();
                assert!(text.contains(&format!("its class is {:06x}", function.class)), "{text}");
            }
        }
        check(&Address::VfioUser("/run/x".into())).unwrap();
    }
}

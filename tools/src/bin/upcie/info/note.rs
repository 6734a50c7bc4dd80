//! The reason why a controller does not start, as its registers alone give it.

use upcie_nvme::spec::{Capabilities, Configuration, ControllerStatus};

/// Returns the reason if the registers show that the controller is not there, has failed, or is not ready although it is
/// enabled.
pub fn note(cap: Capabilities, cc: Configuration, csts: ControllerStatus) -> Option<String> {
    let text = if cap.is_gone() {
        "the register values are invalid: all registers read as ones: the device was removed, its link is down, or it is \
         powered down (D3)"
            .into()
    } else if cap.into_bits() == 0 {
        "the register values are invalid: CAP reads as 0: the device is an SR-IOV virtual function that is not online, or \
         not an NVMe controller"
            .into()
    } else if csts.cfs() {
        "the controller reports a fatal status (CSTS.CFS): opening it resets it, and a power cycle helps where that does \
         not"
            .into()
    } else if cc.en() && !csts.rdy() {
        format!(
            "the controller is enabled (CC.EN) but not ready (CSTS.RDY): it starts now, or can't: CAP.TO gives it {:?}",
            cap.timeout()
        )
    } else {
        return None;
    };
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registers_of_a_controller_that_does_not_start_are_explained() {
        let cap = Capabilities::new().with_mqes(63).with_to(3);
        let enabled = Configuration::new().with_en(true);
        let (idle, ready) = (ControllerStatus::new(), ControllerStatus::new().with_rdy(true));
        let ones = (Configuration::from_bits(u32::MAX), ControllerStatus::from_bits(u32::MAX));
        for (cap, cc, csts, part) in [
            (Capabilities::from_bits(u64::MAX), ones.0, ones.1, "all registers read as ones"),
            (Capabilities::new(), Configuration::new(), idle, "CAP reads as 0"),
            (cap, enabled, ready.with_cfs(true), "CSTS.CFS"),
            (cap, enabled, idle, "not ready (CSTS.RDY): it starts now, or can't: CAP.TO gives it 1.5s"),
        ] {
            let text = note(cap, cc, csts).unwrap();
            assert!(text.contains(part), "{part}: {text}");
        }
        for (cc, csts) in [(enabled, ready), (Configuration::new(), idle)] {
            assert_eq!(note(cap, cc, csts), None);
        }
    }
}

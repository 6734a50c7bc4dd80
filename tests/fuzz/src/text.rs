//! Texts: addresses, the options of the embedded controller, fault plans.

use std::str::FromStr;
use upcie_core::{device, pci::Bdf};
use upcie_nvme::{
    Address,
    emu::{FaultPlan, Options},
};

/// Checks that a value printed and parsed again is the same.
fn returns<T: FromStr<Err: std::fmt::Display> + ToString + PartialEq + std::fmt::Debug>(text: &str) {
    match text.parse::<T>() {
        Ok(value) => {
            let shown = value.to_string();
            let back =
                shown.parse::<T>().unwrap_or_else(|error| panic!("{text:?} is {shown:?}, and then: {error}"));
            assert_eq!(back, value, "{text:?} is {shown:?}");
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

pub fn addresses(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    returns::<device::Address>(text);
    returns::<Address>(text);
    returns::<Bdf>(text);
    returns::<Options>(text);
    if let Ok(options) = text.parse::<Options>() {
        let _ = options.check();
    }
}

pub fn address_seeds() -> Vec<Vec<u8>> {
    let texts = [
        "0000:01:00.0",
        "vfio:0000:01:00.0",
        "uio:0000:ff:1f.7",
        "vfio-user:/run/nvme.sock",
        "emu",
        "emu:size=64M,lba=4096,namespaces=2,latency=50us",
        "size=1536K,namespaces=2,lba=512+4096,ro=true,null=false,queues=64,depth=1024,mdts=128K",
        "file=/tmp/a,,b.img,vectors=0,intx=true,serial=S 1",
        "emu:faults=/etc/plan.toml,msi=8,wrr=true,css=0x41,mpsmin=8K",
    ];
    texts.map(|text| text.as_bytes().to_vec()).into()
}

pub fn fault_plans(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match text.parse::<FaultPlan>() {
        Ok(plan) => assert_eq!(text.parse::<FaultPlan>().ok(), Some(plan), "the same text is the same plan"),
        Err(error) => {
            let said = error.to_string();
            assert!(!said.is_empty());
        }
    }
}

pub fn fault_plan_seeds() -> Vec<Vec<u8>> {
    let rules = [
        "kind = \"status\"\nstatus = 0x281\ndnr = true\nlba = 8\ncount = 3\nafter = 10\nprobability = 0.5\n",
        "kind = \"drop\"\nqueue = \"admin\"\nopcode = \"identify\"\n",
        "kind = \"reorder\"\ntime = \"1ms\"\nnamespace = 2\nopcode = 0x08\n",
    ];
    let mut seeds: Vec<_> = rules.map(|rule| format!("seed = 7\n\n[[fault]]\n{rule}").into_bytes()).into();
    // The examples of the documentation.
    let page = include_str!("../../../docs/faults.md");
    seeds.extend(
        page.split("```toml\n")
            .skip(1)
            .filter_map(|part| Some(part.split_once("```")?.0.as_bytes().to_vec())),
    );
    seeds
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seeds_are_parsed() {
        for seed in address_seeds() {
            let text = std::str::from_utf8(&seed).unwrap();
            let is_one = text.parse::<Address>().is_ok() || text.parse::<Options>().is_ok();
            assert!(
                is_one,
                "{text}: {:?} {:?}",
                text.parse::<Address>().err(),
                text.parse::<Options>().err()
            );
        }
        for seed in fault_plan_seeds() {
            let text = std::str::from_utf8(&seed).unwrap();
            assert!(text.parse::<FaultPlan>().is_ok(), "{text}: {:?}", text.parse::<FaultPlan>().err());
        }
    }
}

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
        "sysfs:10000:e1:00.1",
        "vfio-user:/run/nvme.sock",
        "emu",
        "emu:size=64M,lba=4096,namespaces=2,latency=50us",
        "size=1.5G,lba=512+4096,ro=true,null=false,queues=64,depth=1024,mdts=128K",
        "file=/tmp/a,,b.img,populate=true,vectors=0,intx=true,serial=S 1,model=M",
        "emu:faults=/etc/plan.toml,msi=8,cmb=16M",
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
    let mut seeds: Vec<Vec<u8>> = [
        "seed = 7\ncache = \"1M\"\n\n[[rule]]\nfault = \"delay\"\ntime = \"5ms\"\nqueue = 1\nopcode = \"read\"\n",
        "[[rule]]\nfault = \"status\"\nstatus = \"internal-error\"\ndo-not-retry = true\nlba = [0, 7]\ncount = 3\nafter = 10\nprobability = 0.5\n",
    ]
    .map(|text| text.as_bytes().to_vec())
    .into();
    // The examples of the documentation.
    let page = include_str!("../../../docs/faults.md");
    seeds.extend(
        page.split("```toml\n")
            .skip(1)
            .filter_map(|part| Some(part.split_once("```")?.0.as_bytes().to_vec())),
    );
    seeds
}

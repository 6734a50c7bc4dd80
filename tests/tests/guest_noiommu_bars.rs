//! The caching of BARs, as the kernel's page attribute table lists it; and controller memory without an
//! IOMMU.

use std::{fs, process::Command};
use upcie_core::pci::{Bdf, Binder, Function};
use upcie_nvme::{Address, Controller, upcie_core::mmio::Caching};
use upcie_tests::{
    device::namespaces,
    io::{create, only, read, write},
    process::programs,
    says,
};

fn bdf(index: usize) -> Bdf {
    ["0000:01:00.0", "0000:02:00.0"][index].parse().unwrap()
}

/// Binds the function to the driver of a scheme.
fn prepare(scheme: &str, index: usize) -> Address {
    let function = Function::at(bdf(index)).unwrap();
    match scheme {
        "uio" => Binder::new().bind(&function, "uio_pci_generic").unwrap(),
        _ => Binder::new().unbind(&function).unwrap(),
    }
    format!("{scheme}:{}", bdf(index)).parse().unwrap()
}

/// Returns the caching types of the page attribute table's entries that begin at `base`.
fn types(base: u64) -> Vec<String> {
    // PAT: [mem 0x00000000fe000000-0x00000000ff000000] write-combining
    let list = fs::read_to_string("/sys/kernel/debug/x86/pat_memtype_list").unwrap();
    println!("{list}");
    let start = format!("[mem {base:#018x}-");
    let lines = list.lines().filter(|line| line.contains(&start));
    lines.map(|line| line.rsplit(' ').next().unwrap().to_owned()).collect()
}

fn open(address: &Address, caching: Option<Caching>) -> Controller {
    let options = Controller::builder().cmb_caching(caching);
    options.open(address).unwrap()
}

#[test]
fn registers_are_cached_as_requested() {
    let base = |index: u8| {
        let bars = Function::at(bdf(0)).unwrap().bars().unwrap();
        bars.iter().find(|bar| bar.index == index).unwrap().base
    };
    for scheme in ["uio", "sysfs"] {
        let address = prepare(scheme, 0);
        for (asked, given, entry) in [
            (None, Caching::WriteCombining, "write-combining"),
            (Some(Caching::Uncached), Caching::Uncached, "uncached-minus"),
            (Some(Caching::WriteCombining), Caching::WriteCombining, "write-combining"),
        ] {
            let controller = open(&address, asked);
            let memory = controller.cmb().unwrap().expect("A has one");
            assert_eq!(memory.caching(), given);
            assert_eq!(types(base(2)), [entry], "{scheme}, BAR 2, {asked:?}");
            assert_eq!(types(base(0)), ["uncached-minus"], "{scheme}, BAR 0");
            drop((controller, memory));
            assert!(types(base(2)).is_empty(), "{scheme}: closed");
        }
        let controller = open(&address, Some(Caching::WriteBack));
        says(&controller.cmb().unwrap_err(), &["BAR 2", "write-back", "uncached or write-combining"]);
    }
}

#[test]
fn commands_and_data_in_write_combined_memory_arrive() {
    for scheme in ["uio", "sysfs"] {
        let controller = open(&prepare(scheme, 0), None);
        let memory = controller.cmb().unwrap().unwrap();
        assert_eq!(memory.caching(), Caching::WriteCombining);
        let (namespace, pattern) = namespaces(&controller).remove(0);
        let mut queue = create::<()>(controller.queue_pair().submission_in_controller(true).depth(9));
        for round in 0..500 {
            let mut buffer = memory.alloc(4096).unwrap();
            buffer.write_at(0, &pattern.bytes(40, 8, round));
            queue.turn().unwrap().write(&namespace, 40, buffer, ()).unwrap();
            only(&mut queue);
            pattern.verify(&read(&controller, &namespace, 40, 8), 40, round);
        }
    }
}

#[test]
fn peers_without_an_iommu_use_bus_addresses() {
    for scheme in ["uio", "sysfs"] {
        let a = open(&prepare(scheme, 0), None);
        let b = Controller::builder().open_beside(&a, prepare(scheme, 1)).unwrap();
        let memory = a.cmb().unwrap().unwrap();
        memory.check_peers().unwrap();
        let (namespace, pattern) = namespaces(&b).remove(0);
        let mut host = b.alloc(64 << 10).unwrap();
        pattern.fill(&mut host, 0, 6);
        write(&namespace, 0, &mut host);
        let mut buffer = memory.alloc(64 << 10).unwrap();
        namespace.read(0, &mut buffer).unwrap();
        let mut bytes = vec![0; 64 << 10];
        buffer.read_at(0, &mut bytes);
        pattern.verify(&bytes, 0, 6);
    }
}

#[test]
fn p2p_copies_and_warns_once() {
    for (scheme, prefix) in [("uio", ""), ("uio", "uio:"), ("sysfs", "sysfs:")] {
        prepare(scheme, 0);
        prepare(scheme, 1);
        let addresses = [0, 1].map(|index| format!("{prefix}{}", bdf(index)));
        let output = Command::new(programs().join("upcie"))
            .arg("p2p")
            .args(&addresses)
            .args(["--destructive", "--length", "1M", "--verify"])
            .output()
            .unwrap();
        let (stdout, stderr) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert_eq!(output.status.code(), Some(0), "{stderr}");
        assert!(stdout.contains("verified: both"), "{stdout}");
        let notice = format!("{scheme}:{}, {scheme}:{}: no IOMMU translates", bdf(0), bdf(1));
        assert!(stderr.starts_with(&notice) && stderr.lines().count() == 1, "{stderr}");
    }
}

//! Controllers of one NVM subsystem.

use super::host::Host;
use crate::{
    emu::{self, Emulator},
    spec::{NSSR_SIGNATURE, offset},
};
use upcie_core::vfio_user::server::Backend;

/// A controller that has others beside it waits for no host: one alone takes memory by messages, too.
#[test]
fn controllers_with_others_demand_mapped_memory() {
    for (count, is_demanded) in [(1, false), (2, true), (3, true)] {
        let all = Emulator::subsystem(&"size=1M".parse().unwrap(), count).unwrap();
        assert!(all.iter().all(|one| one.layout().mapped_memory_only == is_demanded), "{count} controllers");
    }
}

/// Returns bit 36 of CAP: the host may reset the NVM subsystem.
fn can_reset_subsystem(host: &Host) -> bool {
    host.bar.read_u32(offset::CAP as u64 + 4).unwrap() >> 4 & 1 == 1
}

/// NSSR reset the controller of its host and no other, where the specification has all or none reset.
#[test]
fn no_host_resets_the_controllers_of_others() {
    let mut hosts: Vec<_> =
        emu::spawn_subsystem(&"size=1M".parse().unwrap(), 2).unwrap().into_iter().map(Host::over).collect();
    hosts.iter_mut().for_each(Host::enable);
    for host in &hosts {
        assert!(!can_reset_subsystem(host));
        host.write_u32(offset::NSSR as u64, NSSR_SIGNATURE).unwrap();
    }
    for host in &mut hosts {
        assert_eq!(host.csts(), 1, "ready");
        host.alive();
    }
    let alone = Host::new("size=1M");
    assert!(can_reset_subsystem(&alone));
    alone.write_u32(offset::NSSR as u64, NSSR_SIGNATURE).unwrap();
    assert_eq!(alone.csts(), 1 << 4, "NSSRO, and not ready");
}

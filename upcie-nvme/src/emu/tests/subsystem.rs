//! Controllers of one NVM subsystem.

use crate::emu::Emulator;
use upcie_core::vfio_user::server::Backend;

/// A controller that has others beside it waits for no host: one alone takes memory by messages, too.
#[test]
fn controllers_with_others_demand_mapped_memory() {
    for (count, is_demanded) in [(1, false), (2, true), (3, true)] {
        let all = Emulator::subsystem(&"size=1M".parse().unwrap(), count).unwrap();
        assert!(all.iter().all(|one| one.layout().mapped_memory_only == is_demanded), "{count} controllers");
    }
}

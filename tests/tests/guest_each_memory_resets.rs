//! The memory of controllers that are not ours over a reset of the controller: QEMU's controller memory buffer (A) and
//! persistent memory region (B), over each transport. Nothing is in flight: `NOT_ON_QEMU` in the lab has the reason.

use upcie_nvme::{Controller, DmaBuf, Namespace, ResetKind};
use upcie_tests::{
    data::Pattern,
    device::namespaces,
    io::{create, only, read, write},
    on_each_device,
};

const KINDS: [ResetKind; 2] = [ResetKind::Controller, ResetKind::Function];
const LEN: usize = 8192;

fn bytes(buffer: &DmaBuf) -> Vec<u8> {
    let mut bytes = vec![0; buffer.len()];
    buffer.read_at(0, &mut bytes);
    bytes
}

/// Writes the buffer's data to the namespace and back: the controller reaches the memory at its address.
fn transfer(
    controller: &Controller,
    namespace: &Namespace,
    pattern: &Pattern,
    buffer: &mut DmaBuf,
    version: u32,
) {
    let blocks = LEN / namespace.block_size();
    buffer.write_at(0, &pattern.bytes(40, blocks, version));
    write(namespace, 40, buffer);
    pattern.verify(&read(controller, namespace, 40, blocks), 40, version);
    buffer.fill(0);
    namespace.read(40, buffer).unwrap();
    pattern.verify(&bytes(buffer), 40, version);
}

#[test]
fn a_memory_buffer_is_at_its_address_after_a_reset() {
    on_each_device(|device| {
        let controller = device.open();
        let Some(memory) = controller.cmb().unwrap() else { return };
        let (namespace, pattern) = namespaces(&controller).remove(0);
        let mut queue = create::<u32>(controller.queue_pair().submission_in_controller(true).depth(8));
        let (mut buffer, place) = (memory.alloc(LEN).unwrap(), (memory.iova(), memory.size()));
        for (version, kind) in (1..).zip(KINDS) {
            transfer(&controller, &namespace, &pattern, &mut buffer, version);
            controller.reset_by(kind).unwrap_or_else(|error| panic!("{kind:?}: {error}"));
            assert_eq!((memory.iova(), memory.size()), place, "{kind:?}");
            // A buffer from before the reset, and a ring that is in the controller.
            transfer(&controller, &namespace, &pattern, &mut buffer, version + 10);
            assert!(queue.recover().unwrap().is_empty(), "{kind:?}: nothing was in flight");
            for tag in 0..20 {
                queue.turn().unwrap().read(&namespace, 40, memory.alloc(4096).unwrap(), tag).unwrap();
                let (done, data) = only(&mut queue);
                assert_eq!(done, tag, "{kind:?}");
                pattern.verify(&bytes(&data), 40, version + 10);
            }
            let mut new = memory.alloc(LEN).unwrap();
            transfer(&controller, &namespace, &pattern, &mut new, version + 20);
        }
    });
}

#[test]
fn a_persistent_region_has_its_data_after_a_reset() {
    on_each_device(|device| {
        let controller = device.open();
        let Some(region) = controller.pmr().unwrap() else { return };
        let (namespace, pattern) = namespaces(&controller).remove(0);
        let blocks = LEN / namespace.block_size();
        let mut buffer = region.alloc_unzeroed(LEN).unwrap();
        for (version, kind) in (1..).zip(KINDS) {
            buffer.write_at(0, &pattern.bytes(60, blocks, version));
            region.flush().unwrap();
            controller.reset_by(kind).unwrap_or_else(|error| panic!("{kind:?}: {error}"));
            let status = region.status().unwrap();
            assert!(!status.nrdy() && status.err() == 0, "{kind:?}: {status:?}");
            pattern.verify(&bytes(&buffer), 60, version);
            region.flush().unwrap();
            if region.takes_data() {
                transfer(&controller, &namespace, &pattern, &mut buffer, version + 10);
            }
        }
    });
}

//! A medium that fails, behind a controller that is not ours: QEMU's, over `blkdebug`.

use upcie_core::pci::{Bdf, Binder, Function};
use upcie_nvme::{Controller, Namespace, Wait, spec::Status};
use upcie_tests::{deadline, io::finish, says};

/// Controller C.
const BDF: &str = "0000:03:00.0";
/// Reads of this block fail, its writes don't.
const UNREADABLE: u64 = 1000;
/// Writes of this block fail, its reads don't.
const UNWRITABLE: u64 = 2000;

fn open(retries: u32) -> (Controller, Namespace) {
    assert!(upcie_tests::in_guest(), "guest_ suites run in the guest only");
    let function = Function::at(BDF.parse::<Bdf>().unwrap()).unwrap();
    if function.driver.as_deref() != Some("vfio-pci") {
        Binder::new().bind(&function, "vfio-pci").unwrap();
    }
    let address = format!("vfio:{BDF}");
    let controller = Controller::builder().retries(retries).open(&address).unwrap();
    let namespace = controller.namespace(1).unwrap();
    assert_eq!(namespace.block_size(), 512);
    (controller, namespace)
}

#[test]
fn each_command_has_the_status_of_its_own_blocks() {
    let (controller, namespace) = open(0);
    let mut queue = controller.queue_pair().depth(64).create::<(bool, u64)>().unwrap();
    let blocks = || [UNREADABLE, UNWRITABLE].into_iter().flat_map(|bad| bad - 5..bad + 5);
    for write in [true, false] {
        let mut turn = queue.turn().unwrap();
        for block in blocks() {
            let mut buffer = controller.alloc(512).unwrap();
            if write {
                buffer.write_at(0, &[block as u8; 512]);
                turn.write(&namespace, block, buffer, (write, block)).unwrap();
            } else {
                turn.read(&namespace, block, buffer, (write, block)).unwrap();
            }
        }
        drop(turn);
        let mut done: Vec<_> = finish(&mut queue).into_iter().map(|done| done.into_parts()).collect();
        assert_eq!(done.len(), blocks().count());
        done.sort_unstable_by_key(|(tag, ..)| *tag);
        for ((_, block), result, buffer) in done {
            let status = match (write, block) {
                (false, UNREADABLE) => Err(Status::UNRECOVERED_READ_ERROR),
                (true, UNWRITABLE) => Err(Status::WRITE_FAULT),
                _ => Ok(()),
            };
            assert_eq!(result, status, "block {block}, write: {write}");
            if !write && result.is_ok() {
                let mut data = [1; 512];
                buffer.read_at(0, &mut data);
                let wanted = if block == UNWRITABLE { 0 } else { block as u8 };
                assert_eq!(data, [wanted; 512], "block {block}");
            }
        }
    }
}

#[test]
fn an_error_names_the_blocks_and_the_next_calls_work() {
    for retries in [0, 3] {
        let (controller, namespace) = open(retries);
        let mut data = vec![0; 4096];
        for _ in 0..3 {
            let error = namespace.read_at((UNREADABLE - 2) * 512, &mut data).unwrap_err();
            says(&error, &[BDF, "Read", "Unrecovered Read Error"]);
            let error = namespace.write_at((UNWRITABLE - 2) * 512, &data).unwrap_err();
            says(&error, &[BDF, "Write", "Write Fault"]);
            namespace.write_at(0, &[7; 4096]).unwrap();
            namespace.read_at(0, &mut data).unwrap();
            assert_eq!(data, [7; 4096]);
        }
        let mut queue = controller.queue_pair().create::<u64>().unwrap();
        queue.turn().unwrap().flush(&namespace, 1).unwrap();
        assert!(queue.wait(Wait::Poll, deadline()).unwrap());
    }
}

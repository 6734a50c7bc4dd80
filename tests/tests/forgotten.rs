//! Values that are forgotten (`mem::forget` is safe) keep what they hold, and memory that a device may still
//! write to is never reused. One test per row of the table in docs/design.md; the tests of a turn and of a
//! lock are in `ownership` and beside the lock.

use std::{
    io::{ErrorKind, Read},
    mem,
    ops::Range,
    os::unix::net::UnixStream,
    sync::Arc,
    time::{Duration, Instant},
};
use upcie_core::{
    open,
    share::SharedRegion,
    vfio_user::{VfioUserDevice, server::Listener},
};
use upcie_nvme::{Controller, DmaBuf, Namespace, QueuePair};
use upcie_tests::{
    deadline,
    futures::poll_once,
    io::{create, only, read},
    left_out,
    process::{Directory, Server},
    says,
};

/// Opens a controller for one test, since a forgotten one stays open until the process ends.
fn controller() -> (Controller, Namespace) {
    let controller = Controller::open("emu:size=16M,queues=4").unwrap();
    let namespace = controller.namespace(1).unwrap();
    (controller, namespace)
}

fn addresses(buffer: &DmaBuf) -> Range<u64> {
    buffer.iova(0)..buffer.iova(buffer.len() - 1) + 1
}

/// Asserts that no later buffer overlaps `taken`, until four regions of the heap have been handed out, and
/// that I/O works.
#[track_caller]
fn nothing_is_reused(controller: &Controller, namespace: &Namespace, taken: &[Range<u64>]) {
    let mut held = Vec::new();
    for len in [512, 4096, 16384, 65536] {
        for _ in 0..(2 << 20) / len {
            let buffer = controller.alloc(len).unwrap();
            let here = addresses(&buffer);
            let reused = taken.iter().find(|taken| here.start < taken.end && taken.start < here.end);
            assert_eq!(reused, None, "{here:x?} was handed out again");
            held.push(buffer);
        }
    }
    read(controller, namespace, 0, 1);
}

#[test]
fn a_forgotten_queue_keeps_its_id_and_its_buffers() {
    let (controller, namespace) = controller();
    let before = controller.heap().in_use();
    let mut queue: QueuePair<u64> = create(controller.queue_pair().depth(16));
    let mut taken = Vec::new();
    let mut turn = queue.turn().unwrap();
    for tag in 0..15 {
        let buffer = controller.alloc(8192).unwrap();
        taken.push(addresses(&buffer));
        turn.read(&namespace, 0, buffer, tag).unwrap();
    }
    drop(turn);
    let id = queue.id();
    mem::forget(queue);
    // The rings and the lists stay as well, so the sum is larger than the buffers.
    assert!(controller.heap().in_use() > before + 15 * 8192);
    nothing_is_reused(&controller, &namespace, &taken);
    let mut others = Vec::new();
    let error = loop {
        assert!(others.len() < usize::from(controller.max_queue_pairs()), "one is in use");
        match controller.queue_pair().create::<u64>() {
            Ok(queue) => others.push(queue),
            Err(error) => break error,
        }
    };
    says(&error, &["in use"]);
    assert!(others.iter().all(|other| other.id() != id));
}

#[test]
fn a_forgotten_future_keeps_its_queue_and_its_buffer() {
    let (controller, namespace) = controller();
    let queue = controller.queue_pair().depth(4).create_async().unwrap();
    let buffer = controller.alloc(4096).unwrap();
    let taken = addresses(&buffer);
    let mut future = queue.read(&namespace, 0, buffer);
    assert!(poll_once(&mut future).is_pending());
    mem::forget(future);
    // The command completes, and nobody takes its result.
    let end = Instant::now() + deadline();
    while queue.in_flight() > 0 {
        assert!(Instant::now() < end, "the read does not complete");
        queue.progress().unwrap();
    }
    let id = queue.id();
    drop(queue);
    nothing_is_reused(&controller, &namespace, &[taken]);
    let others: Vec<QueuePair<u64>> =
        (1..controller.max_queue_pairs()).map(|_| create(controller.queue_pair())).collect();
    assert!(others.iter().all(|other| other.id() != id));
    says(&controller.queue_pair().create::<u64>().unwrap_err(), &["in use"]);
}

#[test]
fn forgotten_events_stay_taken() {
    let (controller, namespace) = controller();
    mem::forget(controller.events().unwrap());
    says(&controller.events().unwrap_err(), &["asynchronous events", "drop it first"]);
    namespace.flush().unwrap();
}

#[test]
fn forgotten_buffers_and_completions_are_not_reused() {
    let (controller, namespace) = controller();
    let mut queue: QueuePair<u64> = create(controller.queue_pair().depth(4));
    let mut taken = Vec::new();
    for tag in 0..8 {
        let buffer = controller.alloc(4096).unwrap();
        taken.push(addresses(&buffer));
        if tag % 2 == 0 {
            mem::forget(buffer);
            continue;
        }
        queue.turn().unwrap().read(&namespace, 0, buffer, tag).unwrap();
        let done = loop {
            if let Some(done) = queue.turn().unwrap().next() {
                break done;
            }
        };
        mem::forget(done);
    }
    nothing_is_reused(&controller, &namespace, &taken);
}

#[test]
fn a_forgotten_part_keeps_the_whole_buffer() {
    let (controller, namespace) = controller();
    let whole = controller.alloc(16384).unwrap();
    let taken = addresses(&whole);
    let (first, second) = whole.split_at(4096);
    mem::forget(second);
    drop(first);
    nothing_is_reused(&controller, &namespace, &[taken]);
}

#[test]
fn a_forgotten_controller_keeps_working() {
    let (controller, namespace) = controller();
    let mut queue: QueuePair<u64> = create(controller.queue_pair().depth(4));
    let buffer = controller.alloc(4096).unwrap();
    let taken = addresses(&buffer);
    mem::forget(controller.clone());
    mem::forget(namespace.clone());
    queue.turn().unwrap().read(&namespace, 0, buffer, 5).unwrap();
    let (tag, buffer) = only(&mut queue);
    assert_eq!((tag, buffer.len()), (5, 4096));
    mem::forget(buffer);
    drop(queue);
    nothing_is_reused(&controller, &namespace, &[taken]);
}

#[test]
fn forgotten_regions_and_heaps_keep_their_addresses() {
    let (controller, namespace) = controller();
    let space = controller.heap().space();
    let mut taken = Vec::new();
    for _ in 0..4 {
        let region = space.allocate(1 << 20, None).unwrap();
        taken.push(region.iova(0)..region.iova(region.len() - 1) + 1);
        mem::forget(region);
        let region = space.allocate(1 << 20, None).unwrap();
        taken.push(region.iova(0)..region.iova(region.len() - 1) + 1);
        mem::forget(controller.heap_over(region).unwrap());
    }
    for _ in 0..16 {
        let region = space.allocate(1 << 20, None).unwrap();
        let here = region.iova(0)..region.iova(region.len() - 1) + 1;
        assert!(taken.iter().all(|taken| here.end <= taken.start || taken.end <= here.start), "{here:x?}");
    }
    nothing_is_reused(&controller, &namespace, &taken);
}

#[test]
fn a_forgotten_device_stays_in_use() {
    if !Server::is_built() && !upcie_tests::is_ci() {
        return left_out("nvme-emu is not built");
    }
    let server = Server::start("size=16M");
    mem::forget(open(&server.address()).unwrap());
    let error = Controller::open(server.address()).unwrap_err();
    says(&error, &["one at a time"]);
    // So does a driver that is forgotten while it works.
    let server = Server::start("size=16M");
    let controller = Controller::builder().open(server.address()).unwrap();
    mem::forget(Arc::new(controller));
    let error = Controller::open(server.address()).unwrap_err();
    says(&error, &["one at a time"]);
}

#[test]
fn a_forgotten_share_stays_mapped() {
    let (controller, _) = controller();
    let region = controller.heap().space().allocate_shared(1 << 20, None).unwrap();
    let (mut owner, user) = UnixStream::pair().unwrap();
    region.export(&owner, deadline()).unwrap();
    let mut shared = SharedRegion::import(&user, deadline()).unwrap();
    shared.write_at(0, b"kept").unwrap();
    let at = shared.as_ptr();
    mem::forget(shared);
    drop(user);
    owner.set_nonblocking(true).unwrap();
    assert_eq!(owner.read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock, "an end that nobody closes");
    drop((region, owner, controller));
    // SAFETY: the forgotten share's mapping is never unmapped.
    assert_eq!(unsafe { at.cast::<[u8; 4]>().read_volatile() }, *b"kept");
}

#[test]
fn a_forgotten_listener_keeps_its_path() {
    let directory = Directory::new();
    let path = directory.path().join("socket");
    mem::forget(Listener::bind(&path).unwrap());
    let error = Listener::bind(&path).unwrap_err();
    says(&error, &["another server listens there"]);
    // Nobody accepts the connection, and the attempt ends at its deadline.
    let error = VfioUserDevice::connect_within(&path, Duration::from_millis(50)).unwrap_err();
    says(&error, &[&path.display().to_string()]);
}

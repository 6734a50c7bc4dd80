//! Commands besides plain transfers as futures.

mod managed;
mod pairs;

use std::{collections::BTreeSet, rc::Rc, sync::mpsc, thread};
use tokio::task::JoinSet;
use upcie_nvme::{
    AsyncQueue, DmaBuf, Failure, Io, KeyCommand, Refusal, ReservationCommand, WithMetadata, ZoneSelect,
    async_queue::AsyncHandle,
    protection::{Checks, Protect},
    spec::{CopyRange, Key, KeyList, Status, StoreOptions, ZoneAction, ZoneFilter},
};
use upcie_tests::futures::{AtMost, BLOCK, Bed, in_one_thread, settled};

/// Runs a test beside a polling driver, and waits until nothing is in flight.
fn driven(bed: &Bed, depth: u32, test: impl AsyncFnOnce(AsyncQueue)) {
    let queue = bed.queue(depth);
    // The queue pair of blocking calls stays.
    if bed.namespace.check_usable().is_ok() {
        bed.namespace.flush().unwrap();
    }
    let before = bed.in_use();
    in_one_thread(async {
        let driver = tokio::task::spawn_local(queue.drive_polled());
        test(queue.clone()).await;
        settled(&queue).await;
        driver.abort();
    });
    assert_eq!(bed.in_use(), before, "each buffer is free again");
}

fn filled(bed: &Bed, len: usize, value: u8) -> DmaBuf {
    let mut buffer = bed.controller.alloc(len).unwrap();
    buffer.fill(value);
    buffer
}

#[test]
fn metadata_and_protection_come_back() {
    let bed = Bed::open("size=1M,ms=8,pi=1");
    driven(&bed, 8, async |queue| {
        let namespace = &bed.namespace;
        // The controller makes the tags of what is written, with an application tag.
        let tag = Protect::new().action().application_tag(0x1234);
        let (result, data) = queue.submit(Io::write(namespace, 8).protect(tag), filled(&bed, BLOCK, 7)).await;
        result.unwrap();
        let checks = Protect::new().check(Checks::all()).application_tag(0x1234);
        let read = Io::read(namespace, 8).protect(checks);
        let buffers = WithMetadata { data, metadata: filled(&bed, 64, 0) };
        let (result, buffers) = queue.submit_with_metadata(read, buffers).await;
        result.unwrap();
        assert_eq!(buffers.data.to_vec(), [7; BLOCK]);
        // Guard, application tag, reference tag of each block.
        let metadata = buffers.metadata.to_vec();
        for (block, tuple) in (8u32..).zip(metadata.chunks_exact(8)) {
            assert_eq!((&tuple[2..4], &tuple[4..8]), (&[0x12, 0x34][..], &block.to_be_bytes()[..]));
        }
        // The same blocks written elsewhere keep tags of their old place: the read says so.
        let write = Io::write(namespace, 16);
        let (result, buffers) = queue.submit_with_metadata(write, buffers).await;
        result.unwrap();
        let read = Io::read(namespace, 16).protect(Protect::new().check(Checks::REFERENCE_TAG));
        let (result, buffers) = queue.submit_with_metadata(read, buffers).await;
        assert_eq!(result.unwrap_err().status(), Some(Status::REFERENCE_TAG_CHECK_ERROR));
        // A refusal brings both buffers back.
        let short = WithMetadata { data: buffers.data, metadata: filled(&bed, 32, 0) };
        let (result, short) = queue.submit_with_metadata(Io::read(namespace, 0), short).await;
        let error = result.unwrap_err();
        let is_refused = matches!(error.failure(), Failure::Refused { reason: Refusal::MetadataLength, .. });
        assert!(is_refused, "{error}");
        assert_eq!((short.data.len(), short.metadata.len()), (BLOCK, 32));
    });
}

#[test]
fn optional_commands_of_blocks() {
    let bed = Bed::open("size=1M,ms=8,pi=1");
    driven(&bed, 4, async |queue| {
        let namespace = &bed.namespace;
        let made = Io::write(namespace, 8).protect(Protect::new().action());
        let (result, data) = queue.submit(made, filled(&bed, BLOCK, 7)).await;
        result.unwrap();
        let blocks = (BLOCK / namespace.block_size()) as u32;
        queue.verify(namespace, 8, blocks, None).await.0.unwrap();
        queue.verify(namespace, 8, blocks, Protect::new().check(Checks::all())).await.0.unwrap();

        // Without the action the blocks keep the reference tags of their old place.
        let mut ranges = filled(&bed, 32, 0);
        ranges.write_at(0, &CopyRange::new(8, blocks).to_bytes());
        let (result, ranges) = queue.copy(namespace, ranges, 1, 64).await;
        result.unwrap();
        queue.verify(namespace, 64, blocks, Protect::new().check(Checks::GUARD)).await.0.unwrap();
        let checked = Protect::new().check(Checks::REFERENCE_TAG);
        let (result, _) = queue.verify(namespace, 64, blocks, checked).await;
        assert_eq!(result.unwrap_err().status(), Some(Status::REFERENCE_TAG_CHECK_ERROR));
        let (result, ranges) = queue.copy(namespace, ranges, 2, 64).await;
        let error = result.unwrap_err();
        assert!(matches!(error.failure(), Failure::Refused { reason: Refusal::Length, .. }), "{error}");
        assert_eq!(ranges.len(), 32, "a refusal brings the ranges back");

        queue.write_uncorrectable(namespace, 9, 1).await.0.unwrap();
        let read = Io::read(namespace, 8).protect(Protect::new().action());
        let (result, _) = queue.submit(read, data).await;
        assert_eq!(result.unwrap_err().status(), Some(Status::UNRECOVERED_READ_ERROR));
        let (result, _) = queue.write_uncorrectable(namespace, namespace.blocks(), 1).await;
        let error = result.unwrap_err();
        assert!(matches!(error.failure(), Failure::Refused { reason: Refusal::OutOfRange, .. }), "{error}");
        assert!(error.to_string().contains("Write Uncorrectable (04h) of 1 blocks"), "{error}");
    });
}

#[test]
fn comparisons_by_tasks_and_handles() {
    let bed = Bed::open("size=1M");
    driven(&bed, 4, async |queue| {
        let namespace = &bed.namespace;
        let (result, data) = queue.write(namespace, 8, filled(&bed, BLOCK, 7)).await;
        result.unwrap();
        let (is_same, data) = queue.compare(namespace, 8, data).await;
        assert!(is_same.unwrap());
        let (is_same, data) = queue.compare(namespace, 16, data).await;
        assert!(!is_same.unwrap(), "those blocks are zeros");
        assert_eq!(data.to_vec(), [7; BLOCK]);
        let handle = queue.handle(4).unwrap();
        let (is_same, _) = handle.compare(namespace, 8, data).await;
        assert!(is_same.unwrap());
        let mut ranges = filled(&bed, 32, 0);
        ranges.write_at(0, &CopyRange::new(8, (BLOCK / namespace.block_size()) as u32).to_bytes());
        handle.copy(namespace, ranges, 1, 16).await.0.unwrap();
        let (is_same, _) = handle.compare(namespace, 16, filled(&bed, BLOCK, 7)).await;
        assert!(is_same.unwrap(), "the copy has arrived");
        handle.write_uncorrectable(namespace, 16, 1).await.0.unwrap();
        let (result, _) = handle.verify(namespace, 16, 1, None).await;
        assert_eq!(result.unwrap_err().status(), Some(Status::UNRECOVERED_READ_ERROR));
    });
}

#[test]
fn tasks_append_to_one_zone_at_once() {
    const TASKS: usize = 16;
    let bed = Bed::open("size=1M,zoned=true,zone-size=64K");
    let zone = bed.namespace.zones().unwrap().start_of(2);
    // More tasks than places.
    driven(&bed, 4, async |queue| {
        let mut tasks = JoinSet::new();
        for task in 0..TASKS {
            let (queue, namespace, buffer) =
                (queue.clone(), bed.namespace.clone(), filled(&bed, BLOCK, task as u8));
            tasks.spawn_local(async move {
                let (block, buffer) = queue.append(&namespace, zone, buffer).await;
                let block = block.unwrap();
                let (result, buffer) = queue.read(&namespace, block, buffer).await;
                result.unwrap();
                assert_eq!(buffer.to_vec(), [task as u8; BLOCK]);
                block
            });
        }
        let blocks: BTreeSet<_> = tasks.join_all().await.into_iter().collect();
        let blocks_each = (BLOCK / bed.namespace.block_size()) as u64;
        let all = (0..TASKS as u64).map(|index| zone + index * blocks_each);
        assert_eq!(blocks, all.collect(), "each has blocks of its own, without a gap");
        // The zone is full now.
        let (full, buffer) = queue.append(&bed.namespace, zone, filled(&bed, BLOCK, 1)).await;
        assert_eq!(full.unwrap_err().status(), Some(Status::ZONE_IS_FULL));
        let (misplaced, buffer) = queue.append(&bed.namespace, zone + 1, buffer).await;
        let error = misplaced.unwrap_err();
        assert!(matches!(error.failure(), Failure::Refused { reason: Refusal::ZoneStart, .. }), "{error}");
        assert_eq!(buffer.len(), BLOCK);
    });
}

#[test]
fn keys_and_values_by_tasks() {
    let bed = Bed::open("size=1M,kv=true");
    driven(&bed, 8, async |queue| {
        let (namespace, nothing) = (&bed.namespace, DmaBuf::empty);
        let keys: Vec<_> = (0..20).map(|n| Key::new(format!("key {n}").as_bytes()).unwrap()).collect();
        for (key, len) in keys.iter().zip(1..) {
            let value = filled(&bed, len * 100, len as u8);
            queue.submit_key(KeyCommand::store(namespace, *key), value).await.0.unwrap();
        }
        for (key, len) in keys.iter().zip(1..) {
            let room = filled(&bed, 500, 0);
            let (found, value) = queue.submit_key(KeyCommand::retrieve(namespace, *key), room).await;
            assert_eq!(found.unwrap(), len * 100, "the whole value's length");
            let shown = (len * 100).min(500);
            assert_eq!(value.to_vec()[..shown], vec![len as u8; shown]);
        }
        let only_new = KeyCommand::store_with(namespace, keys[3], StoreOptions::MUST_NOT_EXIST);
        let (result, value) = queue.submit_key(only_new, filled(&bed, 8, 1)).await;
        assert_eq!((result.unwrap_err().status(), value.len()), (Some(Status::KEY_EXISTS), 8));
        queue.submit_key(KeyCommand::exist(namespace, keys[3]), nothing()).await.0.unwrap();
        queue.submit_key(KeyCommand::delete(namespace, keys[3]), nothing()).await.0.unwrap();
        let (gone, _) = queue.submit_key(KeyCommand::exist(namespace, keys[3]), nothing()).await;
        let gone = gone.unwrap_err();
        assert_eq!(gone.status(), Some(Status::KEY_DOES_NOT_EXIST));
        assert!(gone.to_string().contains(r#""key 3""#), "{gone}");
        let (result, list) =
            queue.submit_key(KeyCommand::list(namespace, None), filled(&bed, BLOCK, 0)).await;
        result.unwrap();
        let listed: BTreeSet<_> = KeyList::new(&list.to_vec()).collect();
        let left = keys.iter().copied().filter(|key| *key != keys[3]);
        assert_eq!(listed, left.collect());
        // Blocks have no meaning here, and a value where there are blocks has none.
        let (result, _) = queue.read(namespace, 0, filled(&bed, BLOCK, 0)).await;
        assert!(matches!(result.unwrap_err().failure(), Failure::Refused { reason: Refusal::HasKeys, .. }));
    });
}

/// Does the work of one request: each kind of command that the namespace has.
async fn request(queue: AsyncQueue, bed: Rc<Bed>, zone: Option<u64>) {
    let namespace = &bed.namespace;
    if let Some(zone) = zone {
        // Zones fill up, and appends fail then.
        let _ = queue.append(namespace, zone, bed.buffer()).await;
        queue.report_zones(namespace, 0, ZoneFilter::ALL, bed.buffer()).await.0.unwrap();
        queue.manage_zones(namespace, ZoneAction::RESET, ZoneSelect::At(zone), false).await.0.unwrap();
        return;
    }
    if namespace.keys().is_ok() {
        let key = Key::new(b"key").unwrap();
        queue.submit_key(KeyCommand::store(namespace, key), bed.buffer()).await.0.unwrap();
        queue.submit_key(KeyCommand::retrieve(namespace, key), bed.buffer()).await.0.unwrap();
        queue.submit_key(KeyCommand::list(namespace, None), bed.buffer()).await.0.unwrap();
        return;
    }
    let buffers = || WithMetadata { data: bed.buffer(), metadata: filled(&bed, 64, 0) };
    queue.submit_with_metadata(Io::write(namespace, 0), buffers()).await.0.unwrap();
    queue.submit_with_metadata(Io::read(namespace, 0), buffers()).await.0.unwrap();
    let report = ReservationCommand::report(namespace, false);
    queue.submit_reservation(report, bed.buffer()).await.0.unwrap();
}

#[test]
fn dropped_at_each_await_point_nothing_leaks() {
    for options in ["kv=true", "ms=8", "zoned=true,zone-size=64K"] {
        for latency in ["0s", "1ms"] {
            let bed = Rc::new(Bed::open(&format!("size=1M,latency={latency},{options}")));
            let zone = bed.namespace.zones().ok().map(|zones| zones.start_of(1));
            driven(&bed, 3, async |queue| {
                for polls in 1.. {
                    // Beside one that goes on.
                    let other = tokio::task::spawn_local(request(queue.clone(), bed.clone(), zone));
                    let walked = AtMost::new(request(queue.clone(), bed.clone(), zone), polls);
                    let walked = tokio::task::spawn_local(walked).await.unwrap();
                    other.await.unwrap();
                    if walked.is_some() {
                        break;
                    }
                }
            });
        }
    }
}

/// Starts a thread that owns a queue, and returns a handle to it.
fn serve(bed: &Bed) -> (AsyncHandle, thread::JoinHandle<()>) {
    let (sender, handles) = mpsc::channel();
    let controller = bed.controller.clone();
    let thread = thread::spawn(move || {
        let queue = controller.queue_pair().depth(8).create_async().unwrap();
        sender.send(queue.handle(4).unwrap()).unwrap();
        let driver = queue.drive_polled();
        drop(queue);
        smol::block_on(driver).unwrap();
    });
    (handles.recv().unwrap(), thread)
}

#[test]
fn handles_of_other_threads_have_the_same_commands() {
    for options in ["size=1M,ms=8", "size=1M,kv=true", "size=1M,zoned=true,zone-size=64K"] {
        let bed = Bed::open(options);
        let (handle, thread) = serve(&bed);
        let namespace = &bed.namespace;
        smol::block_on(async {
            if let Ok(zones) = namespace.zones() {
                let (block, _) = handle.append(namespace, zones.start_of(1), bed.buffer()).await;
                assert_eq!(block.unwrap(), zones.start_of(1));
            } else if namespace.keys().is_ok() {
                let key = Key::new(b"key").unwrap();
                let value = filled(&bed, 100, 9);
                handle.submit_key(KeyCommand::store(namespace, key), value).await.0.unwrap();
                let (len, _) = handle.submit_key(KeyCommand::retrieve(namespace, key), bed.buffer()).await;
                assert_eq!(len.unwrap(), 100);
            } else {
                let buffers = WithMetadata { data: bed.buffer(), metadata: filled(&bed, 64, 3) };
                let (result, buffers) = handle.submit_with_metadata(Io::write(namespace, 0), buffers).await;
                result.unwrap();
                let (result, read) = handle.submit_with_metadata(Io::read(namespace, 0), buffers).await;
                result.unwrap();
                assert_eq!(read.metadata.to_vec(), [3; 64]);
            }
        });
        drop(handle);
        thread.join().unwrap();
    }
    let bed = Bed::open("size=1M");
    let (handle, thread) = serve(&bed);
    for (value, is_same) in [(0, true), (0, false), (1, true)] {
        let (expected, new) = (filled(&bed, 512, value), filled(&bed, 512, 1));
        let done = smol::block_on(handle.compare_and_write(&bed.namespace, 0, expected, new));
        assert_eq!(done.0.unwrap(), is_same);
        assert_eq!(done.1.map(|buffer| buffer.len()), [512, 512]);
    }
    drop(handle);
    thread.join().unwrap();
}

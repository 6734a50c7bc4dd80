//! Vectored transfers: segments of any length at any address, as PRPs or as scatter gather lists, against a model of the
//! blocks.

mod model;

use model::{By, SLBA, Setup, Shape, bytes, set, shapes};
use proptest::{
    prelude::*,
    test_runner::{Config, RngSeed, TestRunner},
};
use std::cell::RefCell;
use upcie_nvme::{
    Controller, Direction, DmaBuf, ErrorKind, Io, Refusal,
    queue::{HeldSegment, SegmentFault, SglUse},
    spec::Status,
};
use upcie_tests::{
    device::{another, namespaces},
    in_guest,
    io::{create, finish, only, read},
    on_each_device, says, scaled,
};

#[test]
fn any_segments_are_transferred_or_refused() {
    on_each_device(|device| {
        let controller = device.open();
        for (namespace, _) in namespaces(&controller) {
            let config = Config {
                cases: scaled(300) as u32,
                failure_persistence: None,
                rng_seed: RngSeed::Fixed(12),
                max_shrink_iters: 100,
                ..Config::default()
            };
            let setup = RefCell::new(Setup::new(&controller, namespace));
            let by = prop_oneof![Just(By::Gathered), Just(By::Chained), Just(By::Held), Just(By::Blocking)];
            TestRunner::new(config)
                .run(&(shapes(), 0..6_usize, by), |(shapes, choice, by)| {
                    setup.borrow_mut().check(&shapes, choice, by)
                })
                .unwrap_or_else(|error| panic!("{error}"));
        }
    });
}

/// Makes `count` pages that are not adjacent.
fn pages(controller: &Controller, count: usize) -> Vec<DmaBuf> {
    let page = |_| controller.heap().alloc_aligned(8192, 4096).unwrap().slice(0..4096);
    (0..count).map(page).collect()
}

#[test]
fn scattered_pages_are_one_command() {
    on_each_device(|device| {
        let controller = device.open();
        for (namespace, _) in namespaces(&controller) {
            let most = namespace.max_transfer().min(256 << 10) / 4096;
            let mut setup = Setup::new(&controller, namespace);
            let block = setup.namespace.block_size();
            for count in [2, 3, 16, most] {
                let mut shapes: Vec<_> =
                    (0..count).map(|at| Shape { offset: at % 3 * 4096, len: 4096, follows: false }).collect();
                for by in [By::Gathered, By::Chained, By::Held, By::Blocking] {
                    setup.check(&shapes, 0, by).unwrap();
                }
                // A first page that is not whole, and a last one.
                shapes[0] = Shape {
                    offset: 4096 - block % 4096,
                    len: if block < 4096 { block } else { 4096 },
                    follows: false,
                };
                shapes[count - 1].len = block;
                for by in [By::Gathered, By::Chained, By::Held, By::Blocking] {
                    setup.check(&shapes, 0, by).unwrap();
                }
            }
        }
    });
}

#[test]
fn blocking_calls_split_vectored_transfers() {
    on_each_device(|device| {
        let controller = device.open();
        for (namespace, _) in namespaces(&controller) {
            let (block, most) = (namespace.block_size(), namespace.max_transfer());
            // The commands end within pages and segments.
            let first = controller.alloc(4096).unwrap().slice(4096 - block..4096);
            let mut buffers = vec![first, controller.alloc(most + 4096).unwrap()];
            buffers.extend(pages(&controller, most / 4096 + 3));
            let data: Vec<u8> =
                (0..buffers.iter().map(DmaBuf::len).sum()).map(|at: usize| (at >> 9 ^ at) as u8).collect();
            set(&mut buffers, &data);
            namespace.write_vectored(SLBA, &mut buffers).unwrap();
            assert!(read(&controller, &namespace, SLBA, data.len() / block) == data);
            buffers.iter_mut().for_each(|buffer| buffer.fill(0));
            namespace.read_vectored(SLBA, &mut buffers).unwrap();
            assert!(bytes(&buffers) == data);
        }
    });
}

#[test]
fn a_segment_that_can_not_be_sent_is_named() {
    on_each_device(|device| {
        let controller = device.open_with(Controller::builder().sgl(SglUse::Never));
        let foreign = another();
        // Some of the cases are a number of blocks of 512 bytes.
        let mut all = namespaces(&controller).into_iter().map(|(namespace, _)| namespace);
        let namespace = all.find(|namespace| namespace.block_size() == 512).expect("one");
        let block = namespace.block_size();
        let mut queue = create::<u64>(controller.queue_pair().depth(4));
        let (one, other, strange) =
            (controller.alloc(8192).unwrap(), controller.alloc(8192).unwrap(), foreign.alloc(8192).unwrap());
        let segment = |number, fault| Refusal::Segment { number, fault };
        #[expect(clippy::reversed_empty_ranges, reason = "a caller's mistake")]
        let backwards = 512..0;
        let cases: Vec<(Vec<HeldSegment<'_>>, Refusal)> = vec![
            (vec![(&one, 0..4096), (&other, 512..4096)], segment(1, SegmentFault::Unaligned)),
            (
                vec![(&one, 0..4096), (&one, 0..512), (&other, 0..4096 - 512)],
                segment(2, SegmentFault::Unaligned),
            ),
            (vec![(&one, 2..4098)], segment(0, SegmentFault::Unaligned)),
            (vec![(&one, 0..4096), (&strange, 0..4096)], segment(1, SegmentFault::Foreign)),
            (vec![(&one, 0..4096), (&other, 0..0)], segment(1, SegmentFault::Length)),
            (vec![(&one, 0..4096), (&other, 4096..8193)], segment(1, SegmentFault::Length)),
            (vec![(&one, 0..4096), (&other, backwards)], segment(1, SegmentFault::Length)),
            (vec![(&one, usize::MAX - 511..usize::MAX)], segment(0, SegmentFault::Length)),
            (vec![], Refusal::Length),
            (vec![(&one, 0..4096), (&other, 0..block - 4)], Refusal::Length),
        ];
        for (segments, wanted) in &cases {
            for direction in [Direction::Read, Direction::Write] {
                let io = Io::new(direction, &namespace, 0);
                let mut turn = queue.turn().unwrap();
                // SAFETY: nothing is sent.
                let refused = unsafe { turn.submit_vectored_held(io, segments, 9) }.unwrap_err();
                assert_eq!((refused.reason, refused.tag), (*wanted, 9), "{segments:?}");
            }
        }
        let many: Vec<_> = (0..namespace.max_transfer() / 4096 + 1).map(|_| (&one, 0..4096)).collect();
        let end = namespace.blocks();
        for (slba, segments, wanted) in [
            (0, &many[..], Refusal::TooLong),
            (
                end - 1,
                &[(&one, 0..8192)][..],
                if block == 8192 { Refusal::Length } else { Refusal::OutOfRange },
            ),
            (u64::MAX, &[(&one, 0..8192)][..], Refusal::OutOfRange),
        ] {
            let mut turn = queue.turn().unwrap();
            // SAFETY: nothing is sent.
            let refused = unsafe { turn.submit_vectored_held(Io::read(&namespace, slba), segments, 9) };
            assert_eq!(refused.unwrap_err().reason, wanted);
        }
        let theirs = foreign.namespace(1).unwrap();
        // SAFETY: nothing is sent.
        let refused = unsafe {
            queue.turn().unwrap().submit_vectored_held(Io::read(&theirs, 0), &[(&one, 0..4096)], 9)
        };
        assert_eq!(refused.unwrap_err().reason, Refusal::ForeignNamespace);
        // The blocking calls send no part of it.
        let mut buffers = [controller.alloc(4096).unwrap(), controller.alloc(8192).unwrap().slice(512..4608)];
        let before = read(&controller, &namespace, 0, 8192 / block);
        buffers.iter_mut().for_each(|buffer| buffer.fill(0x77));
        let error = namespace.write_vectored(0, &mut buffers).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Refused);
        says(&error, &["segment 1 begins", "was not sent"]);
        assert_eq!(buffers.each_ref().map(DmaBuf::len), [4096, 4096], "the buffers come back");
        assert!(read(&controller, &namespace, 0, 8192 / block) == before);
        let mut buffers = [controller.alloc(4096).unwrap(), DmaBuf::empty()];
        says(&namespace.read_vectored(0, &mut buffers).unwrap_err(), &["segment 1 has no bytes"]);
        assert!(namespace.read_vectored(0, &mut []).is_err());
        assert_eq!(queue.in_flight(), 0);
    });
}

#[test]
fn lists_that_find_no_memory_wait_for_others() {
    on_each_device(|device| {
        let controller = device.open();
        if !controller.identify().supports_sgls() {
            return;
        }
        let (namespace, _) = namespaces(&controller).remove(0);
        let mut queue = create::<u64>(controller.queue_pair().depth(64).list_memory(4096));
        // Pieces of 32 bytes, not adjacent.
        let pieces = |count: usize| {
            let piece = |at| controller.alloc(64).unwrap().slice(at % 2..at % 2 + 32);
            DmaBuf::gather((0..count).map(piece))
        };
        let (mut sent, mut reason) = (0, None);
        let mut turn = queue.turn().unwrap();
        while reason.is_none() && sent < 63 {
            match turn.read(&namespace, 0, pieces(4096 / 32), sent) {
                Ok(()) => sent += 1,
                Err(refused) => reason = Some(refused.reason),
            }
        }
        drop(turn);
        assert_eq!(reason, Some(Refusal::ListsInUse), "after {sent} commands");
        assert_eq!(finish(&mut queue).len(), sent as usize);
        queue.turn().unwrap().read(&namespace, 0, pieces(4096 / 32), 1).unwrap();
        let done = finish(&mut queue).remove(0).result();
        // QEMU 10.0 reads each segment over the descriptor that led to it, and takes the third of a list for the last.
        let is_qemus = in_guest() && done == Err(Status::INVALID_SGL_SEGMENT);
        assert!(done.is_ok() || is_qemus, "{done:?}");
        if namespace.max_transfer() >= 128 << 10 {
            let refused = queue.turn().unwrap().read(&namespace, 0, pieces((128 << 10) / 32), 1).unwrap_err();
            assert_eq!(refused.reason, Refusal::TooLong, "no list memory is that large");
        }
    });
}

#[test]
fn sgls_for_all_data_need_a_controller_that_takes_them() {
    let without = Controller::open("emu:size=1M,sgl=false").unwrap();
    let refused = without.queue_pair().sgl(SglUse::Always).create::<u64>().unwrap_err();
    says(&refused, &["takes no scatter gather lists", "SglUse::WhereNeeded"]);
    let refused = Controller::builder().sgl(SglUse::Always).open("emu:size=1M,sgl=false").unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unsupported);
    let namespace = without.namespace(1).unwrap();
    let mut odd = [without.alloc(512).unwrap().slice(2..258), without.alloc(256).unwrap()];
    says(&namespace.read_vectored(0, &mut odd).unwrap_err(), &["segment 0"]);

    let controller = Controller::builder().sgl(SglUse::Always).open("emu:size=16M").unwrap();
    let namespace = controller.namespace(1).unwrap();
    let mut queue = create::<u64>(controller.queue_pair());
    for len in [512, 8192, 1 << 20] {
        let mut buffer = controller.alloc(len).unwrap();
        buffer.fill(len.trailing_zeros() as u8);
        queue.turn().unwrap().write(&namespace, SLBA, buffer, 1).unwrap();
        let (_, buffer) = only(&mut queue);
        assert!(read(&controller, &namespace, SLBA, len / 512) == buffer.to_vec());
    }
}

#[test]
fn a_controller_with_dwords_alone_gets_no_other_lists() {
    let controller = Controller::open("emu:size=1M,sgl=dwords").unwrap();
    let namespace = controller.namespace(1).unwrap();
    let mut queue = create::<u64>(controller.queue_pair());
    let piece = |start: usize, len: usize| controller.alloc(4096).unwrap().slice(start..start + len);
    queue.turn().unwrap().read(&namespace, 0, DmaBuf::gather([piece(4, 500), piece(12, 524)]), 1).unwrap();
    only(&mut queue);
    let odd = DmaBuf::gather([piece(4, 500), piece(14, 524)]);
    let refused = queue.turn().unwrap().read(&namespace, 0, odd, 1).unwrap_err();
    assert_eq!(refused.reason, Refusal::Segment { number: 1, fault: SegmentFault::Unaligned });
    let refused = queue.turn().unwrap().read(&namespace, 0, piece(2, 512), 1).unwrap_err();
    assert_eq!(refused.reason, Refusal::Unaligned);
}

/// A vfio-user target announces an MDTS of 1 MiB, and fails commands of more than 33 PRPs.
#[test]
fn data_of_more_prps_than_a_target_takes_is_an_sgl() {
    const FEW: usize = 128 << 10;
    let open = |usage, serial| {
        let address = format!("emu:size=16M,prps=33,serial={serial}");
        let controller = Controller::builder().sgl(usage).open(&*address).unwrap();
        let namespace = controller.namespace(1).unwrap();
        (controller, namespace)
    };
    let (controller, namespace) = open(SglUse::WhereNeeded, "FEW-1");
    assert_eq!(namespace.max_transfer(), 1 << 20);
    namespace.read(0, &mut controller.alloc(FEW).unwrap()).unwrap();
    let refused = namespace.read(0, &mut controller.alloc(2 * FEW).unwrap()).unwrap_err();
    assert_eq!(refused.status(), Some(Status::INVALID_FIELD), "{refused}");

    let (controller, namespace) = open(SglUse::Beyond(33), "FEW-2");
    let mut by_prps = create::<u64>(controller.queue_pair().sgl(SglUse::Never));
    by_prps.turn().unwrap().read(&namespace, 0, controller.alloc(2 * FEW).unwrap(), 1).unwrap();
    assert_eq!(finish(&mut by_prps).remove(0).result(), Err(Status::INVALID_FIELD));

    let mut queues = [SglUse::Beyond(33), SglUse::Beyond(8), SglUse::Beyond(0), SglUse::Always]
        .map(|usage| create::<u64>(controller.queue_pair().sgl(usage)));
    let mut version = 0_u8;
    for len in [512, 8192, FEW, FEW + 512, 2 * FEW, 1 << 20] {
        let whole = || vec![controller.alloc(len).unwrap()];
        let part = || vec![controller.alloc(len + 1024).unwrap().slice(512..512 + len)];
        let scattered = || {
            let mut all = pages(&controller, len / 4096);
            all.extend((len % 4096 > 0).then(|| controller.alloc(len % 4096).unwrap()));
            all
        };
        for make in [&whole as &dyn Fn() -> Vec<DmaBuf>, &part, &scattered] {
            for queue in &mut queues {
                version += 1;
                let data: Vec<u8> = (0..len).map(|at| (at >> 9 ^ at) as u8 ^ version).collect();
                let joined = |data: &[u8]| {
                    let mut segments = make();
                    set(&mut segments, data);
                    if segments.len() == 1 { segments.remove(0) } else { DmaBuf::gather(segments) }
                };
                queue.turn().unwrap().write(&namespace, SLBA, joined(&data), 1).unwrap();
                only(queue);
                assert!(read(&controller, &namespace, SLBA, len / 512) == data, "{len} bytes");
                let mut held = joined(&vec![0; len]);
                // SAFETY: the command is waited for before the buffer is looked at.
                unsafe { queue.turn().unwrap().submit_held(Io::read(&namespace, SLBA), &held, 0..len, 2) }
                    .unwrap();
                only(queue);
                namespace.write(SLBA, &mut held).unwrap();
                assert!(bytes(&held.into_segments()) == data, "{len} bytes");
                queue.turn().unwrap().read(&namespace, SLBA, joined(&vec![0; len]), 3).unwrap();
                assert!(bytes(&only(queue).1.into_segments()) == data, "{len} bytes");
            }
        }
    }
}

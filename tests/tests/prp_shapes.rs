//! Buffers of every shape: whole buffers, parts at any offset, and chains, some of which PRPs can't describe.

use proptest::{
    prelude::*,
    test_runner::{Config, RngSeed, TestCaseError, TestRunner},
};
use upcie_nvme::{
    Controller, DmaBuf, Namespace, QueuePair, Refusal, Refused,
    queue::{SegmentFault, SglUse},
};
use upcie_tests::{
    data::{Bytes, Pattern},
    device::namespaces,
    io::{create, only, read, write},
    on_each_device, scaled,
};

/// A segment of `len` bytes from `offset` on, in an allocation of some pages.
#[derive(Debug, Clone)]
struct Piece {
    offset: usize,
    len: usize,
    /// The segment continues the one before, in the same allocation.
    touches: bool,
}

/// Generates offsets into an allocation, mostly valid for PRPs.
fn offsets() -> impl Strategy<Value = usize> {
    prop_oneof![
        4 => (0..4_usize).prop_map(|page| page * 4096),
        4 => (0..4096_usize).prop_map(|dword| dword * 4),
        1 => 0..16384_usize,
    ]
}

fn lengths(most: usize) -> impl Strategy<Value = usize> {
    let pages = most / 4096;
    prop_oneof![
        3 => (1..=pages).prop_map(|pages| pages * 4096),
        3 => (1..=most / 512).prop_map(|blocks| blocks * 512),
        // The rest of a page, and other multiples of 512.
        2 => (1..=8_usize).prop_map(|eighth| eighth * 512),
        1 => (1..=4096_usize).prop_map(|bytes| bytes * 4),
        1 => 1..8192_usize,
    ]
}

fn pieces(most: usize) -> impl Strategy<Value = Vec<Piece>> {
    let piece = move || {
        (offsets(), lengths(most), any::<bool>()).prop_map(|(offset, len, touches)| Piece {
            offset,
            len,
            touches,
        })
    };
    prop_oneof![
        2 => piece().prop_map(|piece| vec![piece]),
        3 => proptest::collection::vec(piece(), 2..6),
    ]
}

/// Generates chains that PRPs can describe: a first segment up to the end of a page, whole pages, and a last
/// segment from the start of a page; cut anywhere.
fn regular(most: usize) -> impl Strategy<Value = Vec<Piece>> {
    let pages = (most / 4096).clamp(3, 12);
    (0..8_usize, proptest::collection::vec(1..=pages / 3, 0..3), 1..=8_usize).prop_map(
        |(skip, middle, last)| {
            let piece = |offset, len| Piece { offset, len, touches: false };
            let mut all = vec![piece(skip * 512, 4096 - skip * 512)];
            all.extend(middle.into_iter().map(|pages| piece(4096, pages * 4096)));
            all.push(piece(0, last * 512));
            all
        },
    )
}

/// Builds the chain.
fn build(controller: &Controller, pieces: &[Piece]) -> DmaBuf {
    let mut segments: Vec<DmaBuf> = Vec::new();
    let mut at = 0;
    while at < pieces.len() {
        // Adjacent segments are cut from one allocation.
        let end = (at + 1..pieces.len()).find(|&next| !pieces[next].touches).unwrap_or(pieces.len());
        let run = &pieces[at..end];
        let total: usize = run.iter().map(|piece| piece.len).sum();
        let mut rest = controller.heap().alloc_aligned(run[0].offset + total, 4096).unwrap();
        rest.fill(0xee);
        if run[0].offset > 0 {
            let all = rest.len();
            rest = rest.slice(run[0].offset..all);
        }
        for (i, piece) in run.iter().enumerate() {
            if i + 1 == run.len() {
                segments.push(std::mem::take(&mut rest));
            } else {
                let (first, second) = rest.split_at(piece.len);
                segments.push(first);
                rest = second;
            }
        }
        at = end;
    }
    let mut chain = DmaBuf::empty();
    for segment in segments.into_iter().rev() {
        let mut segment = segment;
        if !chain.is_empty() {
            segment.chain(std::mem::take(&mut chain));
        }
        chain = segment;
    }
    chain
}

/// Computes the expected answer of the driver from the addresses alone.
fn verdict(buffer: &DmaBuf, namespace: &Namespace, page: u64) -> Result<(), Refusal> {
    let total = buffer.total_len();
    if !total.is_multiple_of(namespace.block_size()) {
        return Err(Refusal::Length);
    }
    if total > namespace.max_transfer() {
        return Err(Refusal::TooLong);
    }
    let spans: Vec<_> = buffer.segments().map(|s| (s.iova(0), s.iova(s.len() - 1) + 1)).collect();
    let joins = |pair: &[(u64, u64)]| pair[0].1 == pair[1].0 || (pair[0].1 | pair[1].0).is_multiple_of(page);
    let odd = match spans.windows(2).position(|pair| !joins(pair)) {
        _ if spans[0].0 % 4 != 0 => 0,
        None => return Ok(()),
        Some(before) => before as u32 + 1,
    };
    if spans.len() == 1 {
        return Err(Refusal::Unaligned);
    }
    Err(Refusal::Segment { number: odd, fault: SegmentFault::Unaligned })
}

/// Copies the bytes of all segments out.
fn gather(buffer: &DmaBuf) -> Vec<u8> {
    buffer.segments().flat_map(|segment| segment.to_vec()).collect()
}

/// Copies bytes into all segments.
fn scatter(mut buffer: DmaBuf, bytes: &[u8]) -> DmaBuf {
    let (mine, rest) = bytes.split_at(buffer.len());
    buffer.write_at(0, mine);
    if let Some(next) = buffer.unchain() {
        buffer.chain(scatter(next, rest));
    }
    buffer
}

const SLBA: u64 = 40;

fn check(
    controller: &Controller,
    (namespace, pattern): &(Namespace, Pattern),
    queue: &mut QueuePair<u64>,
    pieces: &[Piece],
) -> Result<(), TestCaseError> {
    let buffer = build(controller, pieces);
    let (total, at) = (buffer.total_len(), buffer.as_ptr());
    let wanted = verdict(&buffer, namespace, controller.page_size() as u64);
    if let Err(wanted) = wanted {
        for write in [false, true] {
            let buffer = build(controller, pieces);
            let (total, at) = (buffer.total_len(), buffer.as_ptr());
            let mut turn = queue.turn().unwrap();
            let refused = match write {
                false => turn.read(namespace, SLBA, buffer, 77),
                true => turn.write(namespace, SLBA, buffer, 77),
            };
            drop(turn);
            let Err(Refused { reason, buffer, tag }) = refused else {
                return Err(TestCaseError::fail(format!("taken, though {wanted:?}")));
            };
            prop_assert_eq!(reason, wanted);
            prop_assert_eq!(
                (tag, buffer.total_len(), buffer.as_ptr()),
                (77, total, at),
                "the payload comes back"
            );
            prop_assert!(gather(&buffer).iter().all(|&byte| byte == 0xee), "and is untouched");
        }
        return Ok(());
    }
    let blocks = total / namespace.block_size();
    // Written in this shape and read as one piece; one block on either side stays.
    let old = pattern.bytes(SLBA - 1, blocks + 2, 1);
    let mut plain = controller.alloc(old.len()).unwrap();
    plain.write_at(0, &old);
    write(namespace, SLBA - 1, &mut plain);
    let buffer = scatter(buffer, &pattern.bytes(SLBA, blocks, 2));
    let mut turn = queue.turn().unwrap();
    turn.write(namespace, SLBA, buffer, 1).map_err(|refused| TestCaseError::fail(format!("{refused:?}")))?;
    drop(turn);
    let (_, buffer) = only(queue);
    prop_assert_eq!(buffer.as_ptr(), at);
    let back = read(controller, namespace, SLBA - 1, blocks + 2);
    let size = namespace.block_size();
    pattern.verify(&back[..size], SLBA - 1, 1);
    pattern.verify(&back[size..back.len() - size], SLBA, 2);
    pattern.verify(&back[back.len() - size..], SLBA + blocks as u64, 1);
    // Then the other way round.
    let mut plain = controller.alloc(total).unwrap();
    pattern.fill(&mut plain, SLBA, 3);
    write(namespace, SLBA, &mut plain);
    let mut turn = queue.turn().unwrap();
    turn.read(namespace, SLBA, buffer, 2).map_err(|refused| TestCaseError::fail(format!("{refused:?}")))?;
    drop(turn);
    let (_, buffer) = only(queue);
    prop_assert_eq!((buffer.total_len(), buffer.as_ptr()), (total, at));
    pattern.verify(&gather(&buffer), SLBA, 3);
    // The bytes before a part in its allocation are unchanged.
    if let Ok(whole) = buffer.try_reunite() {
        prop_assert!(
            whole.bytes()[..pieces[0].offset].iter().all(|&byte| byte == 0xee),
            "bytes before the part"
        );
    }
    Ok(())
}

/// Tries `cases` shapes of a strategy, made for the bytes of the longest command, on each namespace.
fn try_shapes<S: Strategy<Value = Vec<Piece>>>(cases: usize, shapes: impl Fn(usize) -> S) {
    on_each_device(|device| {
        let controller = device.open();
        for namespace in namespaces(&controller) {
            let config = Config {
                cases: scaled(cases) as u32,
                failure_persistence: None,
                rng_seed: RngSeed::Fixed(7),
                max_shrink_iters: 200,
                ..Config::default()
            };
            let queue =
                std::cell::RefCell::new(create::<u64>(controller.queue_pair().depth(8).sgl(SglUse::Never)));
            let most = namespace.0.max_transfer();
            TestRunner::new(config)
                .run(&shapes(most), |pieces| check(&controller, &namespace, &mut queue.borrow_mut(), &pieces))
                .unwrap_or_else(|error| panic!("{error}"));
        }
    });
}

#[test]
fn any_shape_is_transferred_or_refused() {
    try_shapes(400, |most| pieces(most / 3));
}

#[test]
fn long_parts_are_transferred_or_refused() {
    try_shapes(100, |most| {
        (offsets(), lengths(most + 8192))
            .prop_map(|(offset, len)| vec![Piece { offset, len, touches: false }])
    });
}

#[test]
fn regular_chains_are_transferred() {
    try_shapes(200, regular);
}

#[test]
fn the_longest_transfer_starts_anywhere_in_a_page() {
    on_each_device(|device| {
        let controller = device.open();
        for namespace in namespaces(&controller) {
            let mut queue = create::<u64>(controller.queue_pair().depth(2).sgl(SglUse::Never));
            let len = namespace.0.max_transfer();
            for offset in [0, 4, 512, 2048, 4092] {
                let piece = Piece { offset, len, touches: false };
                check(&controller, &namespace, &mut queue, &[piece]).unwrap();
            }
        }
    });
}

#[test]
fn a_controller_without_a_limit_takes_the_longest_transfers() {
    // 32 MiB is the driver's longest command: lists span several pages.
    let controller = Controller::open("emu:size=64M,mdts=64M").unwrap();
    let namespace = &namespaces(&controller)[0];
    assert_eq!(namespace.0.max_transfer(), 32 << 20);
    let mut queue = create::<u64>(controller.queue_pair().depth(2).sgl(SglUse::Never));
    for (offset, len) in [(0, 32 << 20), (4, 32 << 20), (512, (32 << 20) - 512)] {
        let piece = Piece { offset, len, touches: false };
        check(&controller, namespace, &mut queue, &[piece]).unwrap();
    }
}

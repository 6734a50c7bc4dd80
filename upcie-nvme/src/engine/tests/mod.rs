//! A queue against a device that the test controls: it completes in any order, twice, too early, or unknown
//! commands.

mod exhaustive;
mod interleaved;
mod model;
mod noise;

use super::*;
use crate::{
    Failure,
    spec::{DatasetRange, DirectiveType, IdentifyNvmController, OptionalCommands},
};
pub(super) use model::heap;
use model::{Device, EXTENT, Flight, Model, PAGE, page};
use std::{collections::VecDeque, sync::Arc};
use upcie_core::{dma::Heap, mmio::Register, testing::Random};
use zerocopy::FromZeros;

#[test]
fn completions_in_any_order_return_their_payloads() {
    let mut random = Random(3);
    for (entries, rounds) in [(2, 500), (3, 1000), (4, 1000), (5, 1000), (33, 300), (64, 300), (65536, 5)] {
        let mut model = Model::new(entries);
        for _ in 0..rounds {
            model.complete(&mut random, false);
            assert!(model.turn(&mut random, false, false), "no lie");
        }
        assert!(model.next > rounds / 4 && model.queue.turn().is_ok());
        model.end();
    }
}

#[test]
fn a_full_ring_of_65536_entries_uses_no_reserved_id() {
    let mut model = Model::new(65536);
    let mut turn = model.queue.turn().unwrap();
    for slba in 0..65535 {
        turn.read(&EXTENT, slba, page(&model.heap), (slba, model.tags.clone())).unwrap();
    }
    assert_eq!(turn.room(), 0);
    drop(turn);
    let ids: std::collections::BTreeSet<u16> = (0..65535).map(|index| model.device.entry(index).0).collect();
    assert_eq!((ids.len(), ids.contains(&0xffff)), (65535, false));
    assert_eq!(model.queue.in_flight(), 65535);
}

#[test]
fn command_ids_are_reused_after_a_wrap() {
    let mut model = Model::new(2);
    let mut buffer = page(&model.heap);
    for slba in 0..33_000_u64 {
        let mut turn = model.queue.turn().unwrap();
        turn.read(&EXTENT, slba, buffer, (slba, model.tags.clone())).unwrap();
        drop(turn);
        let (id, ..) = model.device.entry(slba as usize % 2);
        // One bit tells the two slots apart.
        assert_eq!(u64::from(id), slba * 2 % 65536);
        model.device.post(id);
        model.device.posted.clear();
        let done = model.queue.turn().unwrap().next().expect("completed");
        let tag;
        (tag, _, buffer) = done.into_parts();
        assert_eq!(tag.0, slba);
    }
}

#[test]
fn forged_completions_lose_and_double_nothing() {
    let mut random = Random(4);
    let (mut found, mut leaked) = (0, 0);
    for round in 0..600 {
        let mut model = Model::new(2 + round % 9);
        for turn in 0..40 {
            let lies = turn > 5 && random.one_in(3);
            model.complete(&mut random, lies);
            let leak = random.one_in(50);
            let honest = model.turn(&mut random, turn > 5, leak);
            found += usize::from(!honest);
            leaked += usize::from(leak && honest);
            let error = match model.queue.turn() {
                Ok(_) if honest && !leak => continue,
                Ok(_) => panic!("a queue that is of no more use is closed"),
                Err(error) => error,
            };
            assert!(if honest {
                matches!(error.failure(), Failure::LeakedTurn { .. })
            } else {
                matches!(error.failure(), Failure::ForgedCompletion { .. })
            });
            break;
        }
        model.end();
    }
    assert!(found > 150 && leaked > 30, "{found} {leaked}");
}

#[test]
fn a_reset_stops_an_open_turn_and_returns_each_command_once() {
    let mut random = Random(5);
    for entries in [2, 3, 8, 33, 64] {
        let mut model = Model::new(entries);
        let live = model.queue.live.clone();
        for _ in 0..50 {
            for _ in 0..3 {
                model.complete(&mut random, false);
                assert!(model.turn(&mut random, false, false), "no lie");
            }
            model.complete(&mut random, false);
            let posted = model.device.posted.len();
            let mut in_flight: Vec<u64> = model.flying.values().map(|flight| flight.slba).collect();
            let doorbells = model.device.doorbells.each_ref().map(Register::read);
            let mut turn = model.queue.turn().unwrap();
            while turn.room() > 0 {
                in_flight.push(model.next);
                turn.read(&EXTENT, model.next, page(&model.heap), (model.next, model.tags.clone())).unwrap();
                model.next += 1;
            }
            let before = live.end();
            match random.below(3) {
                0 => {
                    turn.ring();
                    drop(turn);
                }
                1 => std::mem::forget(turn),
                _ => drop(turn),
            }
            assert_eq!(model.device.doorbells.each_ref().map(Register::read), doorbells, "no doorbell rung");
            let error = model.queue.turn().unwrap_err();
            assert!(matches!(error.failure(), Failure::Reset { qid: Some(1), .. }), "{error}");
            before.set_let_go();

            let all = model.queue.take_all();
            assert_eq!(all.iter().filter(|returned| returned.result().is_some()).count(), posted);
            let mut tags: Vec<u64> = all.into_iter().map(|returned| returned.into_parts().0.0).collect();
            tags.sort_unstable();
            in_flight.sort_unstable();
            assert_eq!(tags, in_flight);
            assert_eq!(Arc::strong_count(&model.tags), 1, "every tag came back");

            // The next epoch begins with empty rings, and an entry of the last one completes no command of it.
            let old = model.flying.keys().next().copied();
            model.queue.renew();
            model.queue.join(live.begin().unwrap());
            (model.tail, model.device.tail, model.device.phase) = (0, 0, 1);
            model.device.posted.clear();
            model.flying.clear();
            if let (Some(old), true) = (old, entries < 1 << 15) {
                let mut turn = model.queue.turn().unwrap();
                while turn.room() > 0 {
                    turn.read(&EXTENT, 0, page(&model.heap), (0, model.tags.clone())).unwrap();
                }
                drop(turn);
                model.device.post(old);
                assert!(model.queue.turn().unwrap().next().is_none());
                assert!(
                    matches!(model.queue.turn(), Err(error) if matches!(error.failure(), Failure::ForgedCompletion { .. }))
                );
                live.end();
                model.queue.renew();
                model.queue.join(live.begin().unwrap());
                (model.tail, model.device.tail, model.device.phase) = (0, 0, 1);
                model.device.posted.clear();
            }
            // The test's device knows no reset: its doorbells follow the rings.
            for doorbell in &model.device.doorbells {
                // SAFETY: memory of this test.
                unsafe { doorbell.write(0) };
            }
        }
        model.end();
    }
}

#[test]
fn a_directive_stands_beside_the_flags() {
    let io = Io::write(&EXTENT, 0).fua().directive(DirectiveType::STREAMS, 7).placement(0x8003);
    assert_eq!(io.flags.word(), 1 << 30 | 2 << 20 | 0x8003 << 48, "the last directive, and the flag");
    assert_eq!(Io::read(&EXTENT, 0).placement(3).flags, Dwords::NONE, "a read has none");
    let zeroes = Zeroes::new(&EXTENT, 0, 1).placement(u16::MAX).deallocate();
    assert_eq!(zeroes.flags.word(), 1 << 25 | 2 << 20 | 0xffff << 48);
}

/// The controller failed what exceeds its limits, whatever it had done before.
#[test]
fn commands_beyond_the_limits_are_refused() {
    let mut model = Model::new(8);
    let mut id = IdentifyNvmController::new_zeroed();
    // One range, and two pages of blocks.
    (id.dmrl, id.vsl) = (1, 1);
    model.queue.live.set_limits(CommandLimits::of(&id, PAGE as u64));
    let extent = Extent { deallocates: true, optional: OptionalCommands::all(), ..EXTENT };
    let tag = || (0, model.tags.clone());
    let mut ranges = model.heap.alloc_aligned(PAGE, PAGE).unwrap();
    for at in 0..2 {
        ranges.write_at(at * 16, &DatasetRange::new(8 * at as u64, 8).to_bytes());
    }
    let mut turn = model.queue.turn().unwrap();
    let refused = turn.deallocate(&extent, ranges, 2, tag()).unwrap_err();
    assert_eq!(refused.reason, Refusal::DatasetLimits);
    turn.deallocate(&extent, refused.buffer, 1, tag()).unwrap();
    assert_eq!(turn.verify(&extent, 0, 17, tag()).unwrap_err().reason, Refusal::TooLong);
    turn.verify(&extent, 0, 16, tag()).unwrap();
    turn.write_uncorrectable(&extent, 0, 17, tag()).unwrap();
    assert_eq!(turn.len(), 3);
}

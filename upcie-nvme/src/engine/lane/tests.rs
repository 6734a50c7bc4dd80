use super::*;
use crate::engine::ring::PHASE;
use crate::{
    Controller, QueuePair, Wait,
    queue::Returned,
    spec::{Command, CompletionEntry, NvmOpcode},
};
use std::time::Duration;

/// The number of its slot.
type Tag = [usize; 2];

/// Makes a queue pair of four entries, with an open lane.
fn open(controller: &Controller) -> (Box<QueuePair<Tag>>, Lane<Tag>, Slots<Tag>) {
    let mut pair = Box::new(controller.queue_pair().depth(4).create::<Tag>().unwrap());
    let mut slots = 0..;
    // SAFETY: the tests submit by the lane alone.
    let slots = unsafe { pair.turn().unwrap().fill_slots(|| [slots.next().unwrap(), 0]) };
    let lane = Lane::default();
    // SAFETY: the pair is in a box, and used only while the lane is closed.
    unsafe { pair.turn().unwrap().keep_open(&lane) };
    (pair, lane, slots)
}

fn submit(lane: &Lane<Tag>, command: &Command) -> Option<usize> {
    let vacant = lane.vacant()?;
    let tag = vacant.tag()[0];
    assert_eq!(vacant.index() as usize, tag);
    let write = |prp: *mut u64| {
        // SAFETY: two words of the entry.
        unsafe { prp.cast::<[u64; 2]>().write([0; 2]) }
    };
    // SAFETY: the command has no data.
    unsafe { vacant.send((&raw const *command).cast(), 0, write) };
    Some(tag)
}

fn reap(lane: &Lane<Tag>) -> Option<(CompletionEntry, usize)> {
    let mut completions = lane.completions();
    let next = completions.next().map(|(entry, tag)| (entry, tag[0]));
    completions.end();
    next
}

fn in_flight(slots: &Slots<Tag>) -> Vec<usize> {
    // SAFETY: the tests keep the pair.
    unsafe { slots.tags() }.filter(|slot| slot.2).map(|slot| slot.1[0]).collect()
}

#[test]
fn entries_come_back_whole_over_many_laps() {
    let controller = Controller::open("emu:size=1M").unwrap();
    let (mut pair, lane, slots) = open(&controller);
    let (flush, unknown) = (Command::io(NvmOpcode::FLUSH, 1), Command::io(NvmOpcode(0x7f), 1));
    for lap in 0..20 {
        let sent = [submit(&lane, &flush), submit(&lane, &unknown), submit(&lane, &flush)];
        assert_eq!((submit(&lane, &flush), lane.len(), in_flight(&slots).len()), (None, 3, 3));
        assert!(reap(&lane).is_none() && lane.rung() == 0, "the doorbell was not rung");
        let mut seen = Vec::new();
        while seen.len() < 3 {
            assert!(lane.ring());
            assert_eq!(lane.rung(), 3 - seen.len(), "{lap}");
            lane.close();
            assert_eq!(lane.rung(), 0, "{lap}");
            assert!(pair.wait(Wait::Poll, Duration::from_secs(30)).unwrap());
            // SAFETY: the pair is in a box, and used only while the lane is closed.
            unsafe { pair.turn().unwrap().keep_open(&lane) };
            while let Some((entry, tag)) = reap(&lane) {
                assert_eq!(lane.rung(), 2 - seen.len(), "{lap}");
                assert_eq!((entry.sqid, usize::from(entry.cid) & 3), (1, tag), "{lap}: {entry:?}");
                seen.push((Some(tag), entry.is_success()));
            }
        }
        assert_eq!(seen, [(sent[0], true), (sent[1], false), (sent[2], true)], "{lap}");
        assert!(lane.is_empty() && in_flight(&slots).is_empty());
    }
    lane.close();
    assert_eq!(submit(&lane, &flush), None);
}

#[test]
fn a_diverted_lane_takes_no_command_until_it_resumes() {
    let controller = Controller::open("emu:size=1M").unwrap();
    let (_pair, lane, _slots) = open(&controller);
    let flush = Command::io(NvmOpcode::FLUSH, 1);
    lane.divert();
    assert_eq!((submit(&lane, &flush), lane.is_open()), (None, true));
    lane.resume();
    assert_eq!(submit(&lane, &flush), Some(0));
    lane.close();
}

#[test]
fn a_forged_completion_closes_the_lane() {
    let controller = Controller::open("emu:size=1M").unwrap();
    let (mut pair, lane, _slots) = open(&controller);
    let flush = Command::io(NvmOpcode::FLUSH, 1);
    assert_eq!(submit(&lane, &flush), Some(0));
    assert!(lane.ring());
    lane.close();
    assert!(pair.wait(Wait::Poll, Duration::from_secs(30)).unwrap());
    // SAFETY: the pair is in a box, and used only while the lane is closed.
    unsafe { pair.turn().unwrap().keep_open(&lane) };
    let last = lane.cqe.get().cast_mut().cast::<u32>().wrapping_add(3);
    // SAFETY: the device has written this entry, and writes it no more before the doorbell.
    unsafe { last.write_volatile(PHASE | 2) };
    assert!(reap(&lane).is_none());
    assert_eq!((submit(&lane, &flush), lane.is_open(), lane.rung(), lane.ring()), (None, false, 0, false));
    lane.resume();
    assert_eq!(submit(&lane, &flush), None);
    lane.close();
    assert!(pair.turn().unwrap_err().to_string().contains("not in flight"));
}

#[test]
fn a_reset_closes_the_lane_and_gives_the_commands_back() {
    let controller = Controller::open("emu:size=1M").unwrap();
    let (mut pair, lane, slots) = open(&controller);
    let flush = Command::io(NvmOpcode::FLUSH, 1);
    let sent = [submit(&lane, &flush), submit(&lane, &flush)];
    assert!(lane.ring());
    assert_eq!(lane.rung(), 2);
    controller.reset().unwrap();
    assert!(!lane.ring());
    assert!(lane.rung() == 0 && reap(&lane).is_none(), "not even what had completed before");
    assert_eq!(submit(&lane, &flush), None);
    lane.close();
    let back: Vec<_> = pair.recover().unwrap().iter().map(Returned::tag).map(|tag| Some(tag[0])).collect();
    assert_eq!(back, sent);
    assert!(in_flight(&slots).is_empty());
    // SAFETY: the pair is in a box, and used only while the lane is closed.
    unsafe { pair.turn().unwrap().keep_open(&lane) };
    // All slots are there again, each once.
    let mut again: Vec<_> = std::iter::from_fn(|| submit(&lane, &flush)).collect();
    again.sort_unstable();
    assert_eq!((again, lane.ring()), (vec![0, 1, 2], true));
    lane.close();
}

#[test]
fn many_commands_take_all_slots_once() {
    let controller = Controller::open("emu:size=1M").unwrap();
    let (_pair, lane, slots) = open(&controller);
    let flush = Command::io(NvmOpcode::FLUSH, 1);
    let mut submissions = lane.submissions();
    let mut sent = Vec::new();
    while let Some(tag) = submissions.tag() {
        sent.push(tag[0]);
        let write = |prp: *mut u64| {
            // SAFETY: two words of the entry.
            unsafe { prp.cast::<[u64; 2]>().write([0; 2]) }
        };
        // SAFETY: a tag was there; the command has no data.
        unsafe { submissions.send((&raw const flush).cast(), 0, write) };
    }
    submissions.end();
    assert_eq!((sent, lane.len(), in_flight(&slots).len()), (vec![0, 1, 2], 3, 3));
    lane.close();
}

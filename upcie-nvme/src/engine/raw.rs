//! Completions with their whole entries, for programs that pass them on.

use super::{Completion, Turn};
use crate::spec::CompletionEntry;

impl<T> Turn<'_, T> {
    /// Returns the next finished command like [`next`](Iterator::next), with the controller's whole completion entry: the
    /// fields that the driver does not use (SQHD, SQID) are as the controller wrote them, and not checked.
    #[inline(always)]
    pub fn next_entry(&mut self) -> Option<(CompletionEntry, Completion<T>)> {
        let entry = self.cqe;
        let done = self.next()?;
        // SAFETY: `next` found a completion in this entry, which has two words.
        let second = unsafe { entry.add(1) };
        // SAFETY: aligned, in the ring, which the queue owns; the controller may write to it, since nobody trusts the value.
        let dword2 = unsafe { second.read_volatile() } as u32;
        let whole = CompletionEntry {
            dw0: done.result as u32,
            dw1: (done.result >> 32) as u32,
            sqhd: dword2 as u16,
            sqid: (dword2 >> 16) as u16,
            cid: done.dword3 as u16,
            status_phase: (done.dword3 >> 16) as u16,
        };
        Some((whole, done))
    }
}

#[cfg(test)]
mod tests {
    use crate::{Controller, Wait, spec::NvmOpcode};
    use std::time::Duration;

    #[test]
    fn an_entry_is_handed_out_whole() {
        let controller = Controller::open("emu:size=1M").unwrap();
        let namespace = controller.namespace(1).unwrap();
        let mut queue = controller.queue_pair().depth(4).create::<u64>().unwrap();
        let command = crate::spec::Command::io(NvmOpcode(0x7f), namespace.nsid());
        let mut turn = queue.turn().unwrap();
        assert_eq!(turn.next_slot(), 0);
        turn.flush(&namespace, 1).unwrap();
        // SAFETY: the command has no data.
        unsafe { turn.submit_raw(&command, crate::DmaBuf::empty(), 2) }.unwrap();
        assert_eq!(turn.next_slot(), 2);
        drop(turn);
        let mut seen = Vec::new();
        while seen.len() < 2 {
            assert!(queue.wait(Wait::Poll, Duration::from_secs(30)).unwrap());
            let mut turn = queue.turn().unwrap();
            while let Some((entry, done)) = turn.next_entry() {
                assert_eq!(entry.status(), done.status());
                assert_eq!(entry.sqid, 1);
                assert!((1..=2).contains(&entry.sqhd), "{entry:?}");
                seen.push((*done.tag(), entry.is_success()));
            }
        }
        assert_eq!(seen, [(1, true), (2, false)]);
    }
}

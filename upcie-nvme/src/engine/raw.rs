//! Completions with their whole entries, for programs that pass them on.

use super::{Completion, Turn};
use crate::spec::CompletionEntry;

impl<T> Turn<'_, T> {
    /// Returns the next finished command like [`next`](Iterator::next), with the [slot](Self::next_slot) that it had and the
    /// controller's whole completion entry: the fields that the driver does not use (SQHD, SQID) are as the controller wrote
    /// them, and not checked.
    #[inline(always)]
    pub fn next_entry(&mut self) -> Option<(CompletionEntry, u32, Completion<T>)> {
        let entry = self.cqe;
        let done = self.next()?;
        // SAFETY: `next` found a completion in this entry, which has two words.
        let second = unsafe { entry.add(1) };
        // SAFETY: aligned, in the ring, which the queue owns; the controller may write to it, since nobody trusts the value.
        let dword2 = unsafe { second.read_volatile() } as u32;
        let words = [done.result, u64::from(dword2) | u64::from(done.dword3) << 32];
        let slot = done.dword3 & 0xffff & self.queue.mask;
        Some((zerocopy::transmute!(words), slot, done))
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
            while let Some((entry, slot, done)) = turn.next_entry() {
                assert_eq!(entry.status(), done.status());
                assert_eq!((entry.sqid, slot), (1, *done.tag() as u32 - 1));
                assert!((1..=2).contains(&entry.sqhd), "{entry:?}");
                seen.push((*done.tag(), entry.is_success()));
            }
        }
        assert_eq!(seen, [(1, true), (2, false)]);
    }
}

//! Commands and completions as a program in another language has them: 64 bytes in, 16 bytes out.

use super::{
    Completion, Turn,
    common::cold,
    ring::{SQE_WORDS, Slot},
};
use crate::spec::CompletionEntry;
use upcie_core::dma::DmaBuf;

impl<T> Turn<'_, T> {
    /// Submits the 64 bytes at `command` like [`submit_raw`](Self::submit_raw), with these metadata and data pointers
    /// (PRP) in place of its own. Returns `false` if the queue takes no more commands; nothing was sent then.
    ///
    /// The bytes go from there into the ring: for a program that has many commands in memory.
    ///
    /// # Safety
    /// `command` is valid for reads of 64 bytes, at any alignment, outside of the queue's memory. The other
    /// obligations are those of [`submit_raw`](Self::submit_raw).
    #[inline(always)]
    pub unsafe fn submit_copy(&mut self, command: *const u8, mptr: u64, prp: [u64; 2], tag: T) -> bool {
        if self.is_full() {
            return false;
        }
        let (entry, sqe) = (self.sqe.cast::<[u8; 64]>(), self.sqe);
        // SAFETY: the caller's promise.
        let bytes = unsafe { command.cast::<[u8; 64]>().read_unaligned() };
        // SAFETY: a whole entry of the ring; at most `entries - 1` are in flight, so the device is done with it.
        unsafe { entry.write(bytes) };
        // SAFETY: the caller's promise; the first dword again, since reading the ring may be a read of the device's
        // memory.
        let first = unsafe { command.cast::<u32>().read_unaligned() };
        let slot: *mut Slot<T> = self.slots.wrapping_add(self.top as usize);
        // SAFETY: the queue is not full, so `top` is an index of the slots; inside the turn nobody else refers to them.
        let slot = unsafe { &mut *slot };
        let word = slot.word;
        slot.word = word & 0xffff;
        slot.buffer.write(DmaBuf::empty());
        slot.tag.write(tag);
        // Without PSDT (bits 15:14): the data pointer is two PRP entries.
        let first = first & 0x3fff | (word as u32) << 16;
        // SAFETY: the entry's first dword.
        unsafe { sqe.cast::<u32>().write(first) };
        let pointers = sqe.wrapping_add(2).cast::<[u64; 3]>();
        // SAFETY: words 2 to 4 of the entry.
        unsafe { pointers.write([mptr, prp[0], prp[1]]) };
        // SAFETY: to the next entry, or behind the last.
        self.sqe = unsafe { sqe.add(SQE_WORDS) };
        if self.sqe == self.queue.sq_end {
            cold();
            self.sqe = self.queue.sq;
        }
        self.top = (word >> 32) as u32;
        true
    }

    /// Returns the next finished command like [`next`](Iterator::next), with the [slot](Self::next_slot) that it had
    /// and the controller's whole completion entry. The entry's second half is as the controller wrote it, and not
    /// checked.
    #[inline(always)]
    pub fn next_entry(&mut self) -> Option<(CompletionEntry, u32, Completion<T>)> {
        let (entry, mask) = (self.cqe, self.queue.mask);
        let done = self.next()?;
        // SAFETY: `next` found a completion in this entry, which has two words.
        let second = unsafe { entry.add(1) };
        // SAFETY: aligned, in the ring, which the queue owns; the controller may write to it, since nobody trusts the
        // value.
        let words = [done.result, unsafe { second.read_volatile() }];
        let slot = done.dword3 & 0xffff & mask;
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
        assert!(unsafe { turn.submit_copy((&raw const command).cast(), 0, [0; 2], 2) });
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

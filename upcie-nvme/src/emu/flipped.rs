//! A host's memory whose copies have one bit flipped.

use super::HostMemory;
use std::{io, ptr::NonNull};

/// The memory of `host`, seen through a copy that flips a bit.
#[derive(Debug)]
pub(super) struct FlippedMemory<'h, H> {
    pub host: &'h mut H,
    /// The address of a byte, and the bits of it to flip.
    pub flip: Option<(u64, u8)>,
}

impl<H> FlippedMemory<'_, H> {
    fn flip(&self, iova: u64, data: &mut [u8]) {
        let byte =
            self.flip.and_then(|(at, bits)| Some((usize::try_from(at.checked_sub(iova)?).ok()?, bits)));
        if let Some((byte, bits)) = byte.and_then(|(at, bits)| Some((data.get_mut(at)?, bits))) {
            *byte ^= bits;
        }
    }
}

// SAFETY: it translates as `host` does, with its generation, or not at all.
unsafe impl<H: HostMemory> HostMemory for FlippedMemory<'_, H> {
    fn translate(&mut self, iova: u64, len: usize) -> Option<NonNull<u8>> {
        // Copies through this value can be bent, direct accesses can't.
        if self.flip.is_some() { None } else { self.host.translate(iova, len) }
    }

    fn generation(&self) -> u64 {
        self.host.generation()
    }

    fn read(&mut self, iova: u64, data: &mut [u8]) -> io::Result<()> {
        self.host.read(iova, data)?;
        self.flip(iova, data);
        Ok(())
    }

    fn write(&mut self, iova: u64, data: &[u8]) -> io::Result<()> {
        let mut bent = data.to_vec();
        self.flip(iova, &mut bent);
        self.host.write(iova, &bent)
    }

    fn is_slow(&self) -> bool {
        self.host.is_slow()
    }
}

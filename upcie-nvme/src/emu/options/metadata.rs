//! The blocks of the namespaces that options describe, their metadata and protection.

use super::{
    super::{Error, formats::Layout},
    Options,
};

impl Options {
    /// Returns the largest block size of a namespace, in bytes.
    pub(in crate::emu) fn largest_block(&self) -> u64 {
        self.lba.iter().copied().max().unwrap_or(512).into()
    }

    /// Returns the smallest block size of a namespace, in bytes.
    pub(in crate::emu) fn smallest_block(&self) -> u64 {
        self.lba.iter().copied().min().unwrap_or(512).into()
    }

    /// Returns the block size of a namespace, counted from 0.
    pub(in crate::emu) fn block_size(&self, index: u32) -> u32 {
        let last = self.lba.last().copied().unwrap_or(512);
        self.lba.get(index as usize).copied().unwrap_or(last)
    }

    /// Returns the layout of a namespace, counted from 0; `None` if there is no such format.
    pub(in crate::emu) fn layout(&self, index: u32) -> Option<Layout> {
        /// Takes the value of a namespace: the last one applies to all further ones.
        fn nth<T: Copy + Default>(list: &[T], index: u32) -> T {
            list.get(index as usize).or(list.last()).copied().unwrap_or_default()
        }
        let shift = self.block_size(index).trailing_zeros() as u8;
        let protection = (nth(&self.pi, index), self.guard, self.sts);
        Layout::find((shift, nth(&self.ms, index)), protection, self.extended, self.pi_first)
    }

    /// Checks that each namespace has a format that exists.
    pub(super) fn check_metadata(&self) -> Result<(), Error> {
        let joined = |list: &[u16]| list.iter().map(u16::to_string).collect::<Vec<_>>().join("+");
        let option = format!("ms={}", joined(&self.ms));
        let has_some = self.ms.iter().any(|&size| size != 0);
        if self.null && has_some {
            let reason = "it can't go with null=true: nothing would be stored".into();
            return Err(Error::Option { option, reason });
        }
        if self.zones.any() && has_some {
            let reason = "it can't go with zoned=true: blocks in zones have no metadata".into();
            return Err(Error::Option { option, reason });
        }
        let missing = (0..self.namespaces).find(|&index| self.layout(index).is_none());
        if missing.is_none() && self.ms.len().max(self.pi.len()) <= self.namespaces as usize {
            return Ok(());
        }
        let reason = match missing {
            None => format!("more values than namespaces={}", self.namespaces),
            Some(index) => format!(
                "namespace {} would have no format that there is; with protection information: ms=8 with lba=512 or 4096 (sts=16 \
                 with 512), ms=64 with 4096; with guard=64 ms=16, or ms=64,sts=16 with 4096; with guard=32 ms=16, or \
                 ms=64,sts=40, with 4096",
                index + 1
            ),
        };
        let option = if has_some {
            option
        } else {
            format!("pi={}", self.pi.iter().map(u8::to_string).collect::<Vec<_>>().join("+"))
        };
        Err(Error::Option { option, reason })
    }
}

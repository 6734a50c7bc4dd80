//! What may happen to namespaces while commands come: removal, another size, another format.

use super::{
    formats::Layout,
    io::Io,
    media::Media,
    namespace::{Away, Change, Namespace, refusal},
};
use crate::spec::Status;

impl<M: Media> Io<M> {
    /// Returns the namespace `nsid`, if there is one that takes commands.
    #[inline(always)]
    pub fn namespace(&self, nsid: u32) -> Result<&Namespace, Status> {
        match self.namespaces.get(nsid.wrapping_sub(1) as usize) {
            Some(namespace) if namespace.blocks != 0 => Ok(namespace),
            other => Err(refusal(other)),
        }
    }

    /// Changes a namespace; returns `false` if nothing has changed.
    pub fn change(&mut self, nsid: u32, change: Change) -> bool {
        let Some(namespace) = self.namespaces.get_mut(nsid.wrapping_sub(1) as usize) else { return false };
        match (change, namespace.away) {
            (_, Away::Removed | Away::Detached | Away::Sanitizing | Away::NotSanitized)
            | (Change::Resize(_), Away::Formatting) => return false,
            // Its size is that of its zones, or of its keys and values.
            (Change::Resize(_), Away::Not) if namespace.zoned || namespace.keys => return false,
            (Change::Remove, _) => namespace.set_away(Away::Removed),
            (Change::Resize(blocks), Away::Not) => {
                let before = namespace.blocks;
                namespace.blocks = blocks.clamp(1, namespace.layout.blocks(namespace.capacity));
                return namespace.blocks != before;
            }
            (Change::Reformat(size), _) => {
                let layout = match namespace.keys {
                    true => Layout::PLAIN,
                    false => Layout::plain(size.trailing_zeros() as u8),
                };
                if layout.blocks(namespace.capacity) == 0 {
                    return false;
                }
                namespace.away = Away::Formatting;
                *namespace = namespace.with_layout(layout);
                let (start, capacity) = (namespace.start, namespace.capacity);
                self.renew_zones(start, capacity);
                self.renew_keys(start, capacity);
                self.erase(start, capacity);
                self.note_metadata();
            }
        }
        true
    }

    /// Zeroes a namespace's part of the media for good.
    fn erase(&mut self, start: u64, capacity: u64) {
        if self.protected {
            return;
        }
        let erased = self.wipe(start, capacity).and_then(|()| self.media.flush());
        if let Err(status) = erased {
            tracing::error!(%status, "a namespace that is reformatted keeps old data");
        }
    }

    /// Zeroes a part of the media, in which no block is marked as uncorrectable then.
    pub(super) fn wipe(&mut self, start: u64, len: u64) -> Result<(), Status> {
        self.media.zero(start, len)?;
        self.renew(start, len);
        Ok(())
    }

    /// Notes that a part of the media was zeroed: its zones are empty, and its namespaces have no keys.
    pub(super) fn renew(&mut self, start: u64, len: u64) {
        self.written(start, len);
        self.renew_zones(start, len);
        self.renew_keys(start, len);
    }

    /// Notes that a host reads the Identify data of a namespace: its formatting ends.
    pub fn identified(&mut self, nsid: u32) {
        let found = self.namespaces.get_mut(nsid.wrapping_sub(1) as usize);
        if let Some(namespace) = found.filter(|namespace| namespace.away == Away::Formatting) {
            namespace.set_away(Away::Not);
        }
    }
}

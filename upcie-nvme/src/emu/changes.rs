//! What may happen to namespaces while commands come: removal, another size, another format.

use super::{
    erasure::{Erasure, Purpose},
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

    /// Changes a namespace; returns `false` if nothing has changed. One that is being erased stays as it is until that ends.
    pub fn change(&mut self, nsid: u32, change: Change) -> bool {
        let Some(namespace) = self.namespaces.get_mut(nsid.wrapping_sub(1) as usize) else { return false };
        match (change, namespace.away) {
            (_, Away::Removed | Away::Detached | Away::Deleting | Away::Formatting) => return false,
            (_, Away::Sanitizing | Away::NotSanitized)
            | (Change::Resize(_), Away::Reformatted | Away::Unformatted) => return false,
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
                namespace.away = if self.protected { Away::Reformatted } else { Away::Formatting };
                *namespace = namespace.with_layout(layout);
                let (start, capacity) = (namespace.start, namespace.capacity);
                if self.protected {
                    self.renew_zones(start, capacity);
                    self.renew_keys(start, capacity);
                } else {
                    let named = vec![(nsid as usize - 1, Away::Reformatted)];
                    let purpose = Purpose::Reformat { identified: false };
                    self.erasures.push_back(Erasure::new(purpose, named, None));
                }
                self.note_metadata();
            }
        }
        true
    }

    /// Notes that a host reads the Identify data of a namespace, which takes commands again if a fault plan has reformatted it, or
    /// will once it is erased.
    pub fn identified(&mut self, nsid: u32) {
        let index = nsid.wrapping_sub(1) as usize;
        let Some(namespace) = self.namespaces.get_mut(index) else { return };
        match namespace.away {
            Away::Reformatted => namespace.set_away(Away::Not),
            Away::Formatting => {
                for erasure in self.erasures.iter_mut().filter(|erasure| erasure.place_of(index).is_some()) {
                    if let Purpose::Reformat { identified } = &mut erasure.purpose {
                        *identified = true;
                    }
                }
            }
            _ => {}
        }
    }
}

//! Zoned namespaces: the commands that they take. To the commands of plain namespaces they have no blocks, so those cost
//! nothing more; what is refused there comes here.

mod commands;
mod identify;
mod manage;
mod report;
mod state;

pub(super) use identify::{has_structure, page};
pub(super) use state::Zones;

use super::{Options, namespace::Namespace};
use crate::spec::NvmOpcode;

/// Marks the number of bytes that a command moved: it also has a [result](Io::take_result).
pub(super) const HAS_RESULT: u64 = 1 << 63;

/// A command, field by field: the whole in memory would cost plain commands its copy.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fields {
    pub opcode: NvmOpcode,
    pub flags: u8,
    pub cid: u16,
    pub nsid: u32,
    pub pointers: (u64, u64),
    /// Dwords 10 to 13.
    pub dwords: [u32; 4],
}

impl Fields {
    fn slba(&self) -> u64 {
        u64::from(self.dwords[0]) | u64::from(self.dwords[1]) << 32
    }

    fn blocks(&self) -> u64 {
        u64::from(self.dwords[2] & 0xffff) + 1
    }
}

/// Makes the zones of namespaces; empty if none has zones.
pub(super) fn all(options: &Options, namespaces: &[Namespace]) -> Vec<Option<Zones>> {
    if !options.zones.any() {
        return Vec::new();
    }
    let zones = |namespace: &Namespace| Zones::new(&options.zones, namespace.capacity, namespace.shift);
    namespaces.iter().map(|namespace| namespace.zoned.then(|| zones(namespace))).collect()
}

//! Base, "Namespace Management command" and "Namespace Attachment command"; NVM, "Namespace Management command".

use std::borrow::Cow;

use super::super::command::{ALL_NAMESPACES, Command};
use super::super::identify::{Csi, IdentifyController};
use super::super::opcode::AdminOpcode;
use super::request::{AdminCommand, OptionalAdmin};

/// Bytes of the data of Namespace Management and of a controller list.
const PAGE: usize = 4096;
/// The most placement handles of a namespace.
const MOST_HANDLES: usize = 128;
/// The most controllers of a controller list.
const MOST_CONTROLLERS: usize = 2047;

/// Namespace Management: creates a namespace, which no controller has attached yet. The answer is its NSID.
///
/// Queue pairs must be closed first, and namespace handles are stale afterwards: see
/// [`Controller::admin`](crate::Controller::admin).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CreateNamespace {
    /// Size in blocks of the format (NSZE); of a key value namespace in bytes.
    pub size: u64,
    /// Blocks that may be in use at a time (NCAP): at most `size`, less for thin provisioning; 0 for a key value namespace.
    pub capacity: u64,
    /// Index of the block format, 0 to 63 (FLBAS bits 6:5, 3:0).
    pub format: u8,
    /// Metadata stands at the end of each block (FLBAS bit 4).
    pub extended_metadata: bool,
    /// Protection settings (DPS): bits 2:0 type, bit 3 in the first bytes of the metadata.
    pub protection: u8,
    /// Several controllers may attach it (NMIC bit 0).
    pub shared: bool,
    /// ANA group; 0 for the controller's choice.
    pub ana_group: u32,
    /// NVM set; 0 for none or the default.
    pub nvm_set: u16,
    /// Endurance group; 0 for the default.
    pub endurance_group: u16,
    /// Storage tag mask (LBSTM).
    pub storage_tag_mask: u64,
    /// Placement handles of flexible data placement: reclaim unit handle identifiers, 128 at most.
    pub placement_handles: Vec<u16>,
    /// Command set.
    pub csi: Csi,
}

impl CreateNamespace {
    /// Makes a namespace of `blocks` blocks of a format, all of them usable.
    #[must_use]
    pub fn new(blocks: u64, format: u8) -> Self {
        Self { size: blocks, capacity: blocks, format, ..Self::default() }
    }

    /// Makes a key value namespace of `bytes` bytes for keys and values.
    #[must_use]
    pub fn key_value(bytes: u64) -> Self {
        Self { size: bytes, csi: Csi::KEY_VALUE, ..Self::default() }
    }
}

impl AdminCommand for CreateNamespace {
    const OPCODE: AdminOpcode = AdminOpcode::NAMESPACE_MANAGEMENT;
    type Answer = u32;

    fn command(&self) -> Command {
        Command { cdw11: u32::from(self.csi.0) << 24, ..Command::admin(Self::OPCODE, 0) }
    }

    fn data(&self) -> Cow<'_, [u8]> {
        let mut page = vec![0; PAGE];
        let mut put = |at: usize, bytes: &[u8]| page[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, &self.size.to_le_bytes());
        put(8, &self.capacity.to_le_bytes());
        let format = self.format & 0xf | u8::from(self.extended_metadata) << 4 | self.format >> 4 << 5;
        put(26, &[format]);
        put(29, &[self.protection, self.shared.into()]);
        put(92, &self.ana_group.to_le_bytes());
        put(100, &self.nvm_set.to_le_bytes());
        put(102, &self.endurance_group.to_le_bytes());
        put(384, &self.storage_tag_mask.to_le_bytes());
        let handles = &self.placement_handles[..self.placement_handles.len().min(MOST_HANDLES)];
        put(392, &(handles.len() as u16).to_le_bytes());
        for (index, handle) in handles.iter().enumerate() {
            put(512 + 2 * index, &handle.to_le_bytes());
        }
        Cow::Owned(page)
    }

    fn refusal(&self, controller: &IdentifyController) -> Option<String> {
        if self.size == 0 || self.capacity > self.size {
            return Some("a namespace has a block at least, and no more capacity than blocks".into());
        }
        if self.format > 63 || self.placement_handles.len() > MOST_HANDLES {
            return Some(format!(
                "formats have an index up to 63, and {MOST_HANDLES} placement handles are possible"
            ));
        }
        OptionalAdmin::NAMESPACES.lacking(controller)
    }

    fn answer(&self, dword0: u32, _: Vec<u8>) -> Option<u32> {
        (dword0 != 0).then_some(dword0)
    }
}

/// Namespace Management: deletes a namespace and its data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeleteNamespace {
    /// The namespace; [`ALL_NAMESPACES`] for all of the subsystem.
    pub nsid: u32,
}

impl AdminCommand for DeleteNamespace {
    const OPCODE: AdminOpcode = AdminOpcode::NAMESPACE_MANAGEMENT;
    type Answer = ();

    fn command(&self) -> Command {
        Command { cdw10: 1, ..Command::admin(Self::OPCODE, self.nsid) }
    }

    fn refusal(&self, controller: &IdentifyController) -> Option<String> {
        nsid_refusal(self.nsid, controller).or_else(|| OptionalAdmin::NAMESPACES.lacking(controller))
    }

    fn answer(&self, _: u32, _: Vec<u8>) -> Option<()> {
        Some(())
    }
}

/// Namespace Attachment: attaches a namespace to controllers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttachNamespace {
    /// The namespace.
    pub nsid: u32,
    /// The controllers (CNTLID), 2047 at most.
    pub controllers: Vec<u16>,
}

/// Namespace Attachment: detaches a namespace from controllers. Its data stays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DetachNamespace {
    /// The namespace.
    pub nsid: u32,
    /// The controllers (CNTLID), 2047 at most.
    pub controllers: Vec<u16>,
}

macro_rules! attachments {
    ($($type:ident: $select:literal;)*) => {
        $(
            impl AdminCommand for $type {
                const OPCODE: AdminOpcode = AdminOpcode::NAMESPACE_ATTACHMENT;
                type Answer = ();

                fn command(&self) -> Command {
                    Command { cdw10: $select, ..Command::admin(Self::OPCODE, self.nsid) }
                }

                fn data(&self) -> Cow<'_, [u8]> {
                    Cow::Owned(controller_list(&self.controllers))
                }

                fn refusal(&self, controller: &IdentifyController) -> Option<String> {
                    if self.controllers.is_empty() || self.controllers.len() > MOST_CONTROLLERS {
                        return Some(format!("1 to {MOST_CONTROLLERS} controllers are possible"));
                    }
                    let nsid = nsid_refusal(self.nsid, controller);
                    nsid.or_else(|| OptionalAdmin::NAMESPACES.lacking(controller))
                }

                fn answer(&self, _: u32, _: Vec<u8>) -> Option<()> {
                    Some(())
                }
            }
        )*
    };
}
attachments! {
    AttachNamespace: 0;
    DetachNamespace: 1;
}

/// Returns a controller list: the number of identifiers, and the identifiers, ascending.
fn controller_list(controllers: &[u16]) -> Vec<u8> {
    let mut ids = controllers.to_vec();
    ids.sort_unstable();
    ids.dedup();
    ids.truncate(MOST_CONTROLLERS);
    ids.insert(0, ids.len() as u16);
    let mut page: Vec<u8> = ids.iter().flat_map(|id| id.to_le_bytes()).collect();
    page.resize(PAGE, 0);
    page
}

/// Returns the reason why a namespace identifier is none of the controller's.
pub(super) fn nsid_refusal(nsid: u32, controller: &IdentifyController) -> Option<String> {
    let valid = nsid == ALL_NAMESPACES || (1..=controller.nn).contains(&nsid);
    (!valid).then(|| format!("namespaces have the identifiers 1 to {} here (NN), not {nsid}", controller.nn))
}

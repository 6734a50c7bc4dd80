//! Base, "Firmware Image Download command" and "Firmware Commit command".

use std::borrow::Cow;

use super::super::command::Command;
use super::super::identify::IdentifyController;
use super::super::macros::named_values;
use super::super::opcode::AdminOpcode;
use super::request::{AdminCommand, OptionalAdmin};

/// Firmware Image Download: a part of an image. See [`Controller::download_firmware`](crate::Controller::download_firmware) for
/// whole images.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FirmwareDownload<'a> {
    /// The first byte in the image, a multiple of 4 and of [`Self::granularity`].
    pub offset: u32,
    /// The bytes, a multiple of 4.
    pub data: &'a [u8],
}

impl FirmwareDownload<'_> {
    /// Returns the bytes of which the offset and the length of each part is a multiple (FWUG).
    #[must_use]
    pub const fn granularity(controller: &IdentifyController) -> usize {
        match controller.fwug {
            // Not reported: what all controllers take. No restriction: dwords.
            0 => 4096,
            0xff => 4,
            units => units as usize * 4096,
        }
    }
}

impl AdminCommand for FirmwareDownload<'_> {
    const OPCODE: AdminOpcode = AdminOpcode::FIRMWARE_IMAGE_DOWNLOAD;
    type Answer = ();

    fn command(&self) -> Command {
        let dwords = (self.data.len() as u32 / 4).wrapping_sub(1);
        Command { cdw10: dwords, cdw11: self.offset / 4, ..Command::admin(Self::OPCODE, 0) }
    }

    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(self.data)
    }

    fn refusal(&self, controller: &IdentifyController) -> Option<String> {
        if self.data.is_empty() || self.data.len() % 4 != 0 || self.offset % 4 != 0 {
            return Some("a part of an image has whole dwords, one at least".into());
        }
        let unit = Self::granularity(controller);
        if self.offset as usize % unit != 0 {
            return Some(format!("parts of an image begin at multiples of {unit} bytes (FWUG)"));
        }
        OptionalAdmin::FIRMWARE.lacking(controller)
    }

    fn answer(&self, _: u32, _: Vec<u8>) -> Option<()> {
        Some(())
    }
}

named_values! {
    /// The action of a Firmware Commit (CA).
    CommitAction(u8) {
        STORE = 0, "store the image";
        STORE_AND_ACTIVATE = 1, "store the image, active after the next reset";
        ACTIVATE = 2, "activate the slot's image by the next reset";
        ACTIVATE_NOW = 3, "activate the slot's image at once";
        REPLACE_BOOT_PARTITION = 6, "replace the boot partition";
        ACTIVATE_BOOT_PARTITION = 7, "mark the boot partition active";
    }
}

/// Firmware Commit: stores the image that was downloaded in a slot, or activates one. The answer is dword 0 of the completion.
///
/// An action that activates an image needs that no queue pair exists: see [`Controller::admin`](crate::Controller::admin). Some
/// controllers answer an activation with [`Status::FIRMWARE_NEEDS_CONTROLLER_RESET`](crate::spec::Status) and the like: the
/// image is active after that reset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FirmwareCommit {
    /// The slot, 1 to 7; 0 for the controller's choice (FS).
    pub slot: u8,
    /// The action (CA).
    pub action: CommitAction,
    /// The boot partition of the actions that are about one (BPID): 0 or 1.
    pub boot_partition: u8,
}

impl AdminCommand for FirmwareCommit {
    const OPCODE: AdminOpcode = AdminOpcode::FIRMWARE_COMMIT;
    type Answer = u32;

    fn command(&self) -> Command {
        let cdw10 = u32::from(self.slot & 7)
            | u32::from(self.action.0 & 7) << 3
            | u32::from(self.boot_partition & 1) << 31;
        Command { cdw10, ..Command::admin(Self::OPCODE, 0) }
    }

    fn refusal(&self, controller: &IdentifyController) -> Option<String> {
        let slots = controller.frmw >> 1 & 7;
        let about_slot = self.action.0 <= CommitAction::ACTIVATE_NOW.0;
        if self.slot > 7 || about_slot && slots != 0 && self.slot > slots {
            return Some(format!("the controller has the firmware slots 1 to {slots} (FRMW)"));
        }
        let stores = matches!(self.action, CommitAction::STORE | CommitAction::STORE_AND_ACTIVATE);
        if stores && self.slot == 1 && controller.frmw & 1 == 1 {
            return Some("firmware slot 1 is read-only (FRMW bit 0)".into());
        }
        if self.action == CommitAction::ACTIVATE_NOW && controller.frmw & 1 << 4 == 0 {
            return Some("the controller activates firmware by a reset only (FRMW bit 4 is 0)".into());
        }
        OptionalAdmin::FIRMWARE.lacking(controller)
    }

    fn answer(&self, dword0: u32, _: Vec<u8>) -> Option<u32> {
        Some(dword0)
    }
}

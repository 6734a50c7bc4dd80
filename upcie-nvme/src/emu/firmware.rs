//! Firmware slots. An image is any data that begins with its revision: 8 printable ASCII characters.

use super::boot::BootPartitions;
use crate::spec::{CommitAction, FirmwareSlotLog, Status};
use zerocopy::{FromZeros, IntoBytes};

const INVALID_FIELD: Status = Status::INVALID_FIELD.with_do_not_retry();
const INVALID_IMAGE: Status = Status::INVALID_FIRMWARE_IMAGE.with_do_not_retry();

/// The revision of slot 1: the crate's version would change what a stored image of a system expects.
const BUILT_IN: Revision = *b"1.0     ";
const SLOTS: usize = 3;
/// Slot 1 is read-only; activation without a reset.
pub(super) const UPDATES: u8 = 0x11 | (SLOTS as u8) << 1;
/// The granularity of a download, in units of 4 KiB (FWUG).
pub(super) const GRANULARITY: u8 = 1;
/// The most bytes of an image.
pub(super) const LARGEST: usize = 16 << 20;

pub(super) type Revision = [u8; 8];

/// The firmware slots, and the image that is being downloaded.
#[derive(Debug)]
pub(super) struct Firmware {
    slots: [Option<Revision>; SLOTS],
    /// The slot in use, from 1 on.
    active: u8,
    /// The slot that the next reset activates; 0 for none.
    next: u8,
    image: Vec<u8>,
    /// The parts of the image that have come: first byte and end.
    parts: Vec<(usize, usize)>,
    pub(super) boot: Option<BootPartitions>,
}

impl Firmware {
    /// Makes the slots of a new controller, and boot partitions of `boot` bytes, or none if that is 0.
    pub fn new(boot: u64) -> Self {
        Self {
            slots: [Some(BUILT_IN), None, None],
            active: 1,
            next: 0,
            image: Vec::new(),
            parts: Vec::new(),
            boot: BootPartitions::new(boot),
        }
    }

    /// Returns the revision in use.
    pub fn revision(&self) -> Revision {
        self.slots[usize::from(self.active) - 1].unwrap_or(BUILT_IN)
    }

    /// Makes room for a part of an image of `len` bytes from the byte `offset` on.
    pub fn part(&mut self, offset: u64, len: u64) -> Result<&mut [u8], Status> {
        let (Ok(offset), Ok(len)) = (usize::try_from(offset), usize::try_from(len)) else {
            return Err(INVALID_FIELD);
        };
        let end = offset.saturating_add(len);
        if offset % (usize::from(GRANULARITY) << 12) != 0 || end > LARGEST {
            return Err(INVALID_FIELD);
        }
        if self.parts.iter().any(|&(from, to)| offset < to && from < end) {
            return Err(Status::OVERLAPPING_RANGE.with_do_not_retry());
        }
        self.parts.push((offset, end));
        if self.image.len() < end {
            self.image.resize(end, 0);
        }
        Ok(&mut self.image[offset..end])
    }

    /// Carries out Firmware Commit; returns `true` if another revision is in use now.
    pub fn commit(&mut self, dword: u32) -> Result<bool, Status> {
        let (mut slot, action) = ((dword & 7) as u8, CommitAction((dword >> 3 & 7) as u8));
        if matches!(action, CommitAction::REPLACE_BOOT_PARTITION | CommitAction::ACTIVATE_BOOT_PARTITION) {
            return self.commit_boot(action, (dword >> 31) as u8).map(|()| false);
        }
        if usize::from(slot) > SLOTS {
            return Err(Status::INVALID_FIRMWARE_SLOT.with_do_not_retry());
        }
        let stores = match action {
            CommitAction::STORE | CommitAction::STORE_AND_ACTIVATE => true,
            CommitAction::ACTIVATE => false,
            CommitAction::ACTIVATE_NOW => !self.parts.is_empty(),
            _ => return Err(INVALID_FIELD),
        };
        if slot == 0 {
            slot = if stores { (2..).find(|&slot| slot != self.active).unwrap_or(2) } else { self.active };
        }
        if stores {
            if slot == 1 {
                return Err(Status::INVALID_FIRMWARE_SLOT.with_do_not_retry());
            }
            self.slots[usize::from(slot) - 1] = Some(self.take_image()?);
        }
        if self.slots[usize::from(slot) - 1].is_none() {
            return Err(INVALID_IMAGE);
        }
        match action {
            CommitAction::STORE_AND_ACTIVATE | CommitAction::ACTIVATE => self.next = slot,
            CommitAction::ACTIVATE_NOW => {
                (self.active, self.next) = (slot, 0);
                return Ok(true);
            }
            _ => {}
        }
        Ok(false)
    }

    /// Carries out an action about boot partition `id`.
    fn commit_boot(&mut self, action: CommitAction, id: u8) -> Result<(), Status> {
        if self.boot.is_none() {
            return Err(INVALID_FIELD);
        }
        let image = match action {
            // A commit that fails takes it, too: the host downloads it anew.
            CommitAction::REPLACE_BOOT_PARTITION => Some(self.take_whole()),
            _ => None,
        };
        let Some(boot) = &mut self.boot else { return Err(INVALID_FIELD) };
        match image {
            Some(image) => {
                boot.check_unlocked(id.into())?;
                boot.replace(id.into(), &image?)
            }
            None => {
                boot.activate(id);
                Ok(())
            }
        }
    }

    /// Takes the image that was downloaded, if no part of it is missing.
    fn take_whole(&mut self) -> Result<Vec<u8>, Status> {
        let (image, parts) = (std::mem::take(&mut self.image), std::mem::take(&mut self.parts));
        // Parts don't overlap, so without a gap they make up the image.
        let whole = parts.iter().map(|(from, to)| to - from).sum::<usize>() == image.len();
        if whole { Ok(image) } else { Err(INVALID_IMAGE) }
    }

    /// Takes the image that was downloaded; returns its revision.
    fn take_image(&mut self) -> Result<Revision, Status> {
        let image = self.take_whole()?;
        let revision = image.first_chunk().ok_or(INVALID_IMAGE)?;
        let printable = revision.iter().all(|byte| (b' '..=b'~').contains(byte));
        if printable { Ok(*revision) } else { Err(INVALID_IMAGE) }
    }

    /// Forgets the image that is being downloaded, and activates a slot that waits for it: the controller is reset.
    pub fn reset(&mut self) {
        (self.image, self.parts) = (Vec::new(), Vec::new());
        if self.next != 0 {
            (self.active, self.next) = (self.next, 0);
        }
    }

    /// Returns the Firmware Slot Information log page.
    pub fn page(&self) -> Vec<u8> {
        let mut log = FirmwareSlotLog::new_zeroed();
        log.afi = self.active | self.next << 4;
        for (entry, slot) in log.frs.iter_mut().zip(&self.slots) {
            *entry = slot.unwrap_or_default();
        }
        log.as_bytes().to_vec()
    }
}

//! The properties of a controller, and the reasons why one that is up takes no I/O.

use crate::{
    Error, NoIo, Result,
    spec::{Capabilities, CommandSet, IdentifyController, Version},
};

/// The properties of a controller: fixed once it has been brought up.
#[derive(Debug)]
pub(crate) struct Properties {
    pub(super) identify: Box<IdentifyController>,
    pub(super) version: Version,
    /// Log2 of CC.MPS in bytes.
    pub(super) page_shift: u32,
    /// Bytes that one command may transfer.
    pub(super) max_transfer: u64,
    /// Bytes that one Write Zeroes may name.
    pub(super) max_zeroes: u64,
    /// I/O queue pairs.
    pub(super) granted: u16,
    pub(super) command_set: CommandSet,
    /// The most entries of an I/O queue.
    pub(super) queue_entries: u32,
    /// The reason why the controller takes no I/O, if it takes none.
    pub(super) no_io: Option<NoIo>,
}

impl Properties {
    /// Returns [`Failure::NoIo`](crate::Failure::NoIo) if the controller `device` takes no I/O.
    pub(super) fn check_io(&self, device: &str) -> Result<()> {
        match self.no_io {
            None => Ok(()),
            Some(reason) => Err(Error::no_io(device, reason)),
        }
    }

    /// Returns the number of interrupt vectors to use at most: one for each queue.
    pub(super) fn most_vectors(&self) -> u32 {
        u32::from(self.granted) + 1
    }
}

/// Chooses the command set for CC.CSS.
pub(super) fn command_set(cap: Capabilities) -> (CommandSet, Option<NoIo>) {
    if cap.supports_command_set_profiles() {
        // Namespaces of each command set take commands then, zoned ones among them.
        (CommandSet::ALL, None)
    } else if cap.supports_nvm() {
        (CommandSet::NVM, None)
    } else if cap.css() & 1 << 7 != 0 {
        (CommandSet::ADMIN_ONLY, Some(NoIo::AdminOnly { css: cap.css() }))
    } else {
        // Some controllers leave the field 0, and have the NVM command set.
        (CommandSet::NVM, None)
    }
}

/// Returns the reason in the Identify data why the controller takes no I/O, if there is one.
pub(super) fn entry_sizes(identify: &IdentifyController) -> Option<NoIo> {
    // The low nibble is the required size of an entry, as a power of two.
    let (sqes, cqes) = (identify.sqes & 15, identify.cqes & 15);
    (sqes > 6 || cqes > 4).then_some(NoIo::EntrySizes { sqes, cqes })
}

#[cfg(test)]
mod tests {
    use super::*;
    use zerocopy::FromBytes;

    #[test]
    fn the_command_set_follows_cap_css() {
        let chosen = |css| command_set(Capabilities::new().with_css(css));
        assert_eq!(chosen(1), (CommandSet::NVM, None));
        assert_eq!(chosen(0x41), (CommandSet::ALL, None));
        assert_eq!(chosen(0x40), (CommandSet::ALL, None));
        assert_eq!(chosen(0), (CommandSet::NVM, None), "assumed, with a warning");
        assert_eq!(chosen(0x80), (CommandSet::ADMIN_ONLY, Some(NoIo::AdminOnly { css: 0x80 })));
        assert_eq!(chosen(0xc0), (CommandSet::ALL, None));
    }

    #[test]
    fn oversized_queue_entries_are_named() {
        let mut identify = IdentifyController::read_from_bytes(&[0; 4096][..]).unwrap();
        for (sqes, cqes, refused) in
            [(0x66, 0x44, false), (0x76, 0x54, false), (0x77, 0x44, true), (0x66, 0x55, true)]
        {
            (identify.sqes, identify.cqes) = (sqes, cqes);
            assert_eq!(entry_sizes(&identify).is_some(), refused, "{sqes:x} {cqes:x}");
        }
    }
}

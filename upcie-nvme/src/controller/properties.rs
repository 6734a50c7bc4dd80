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
    /// The most entries of an I/O queue when the controller was brought up.
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

    /// Returns the first change of the capabilities, from `before` to `now`, that breaks what was made with those of before: the
    /// doorbells and sizes of queues, the memory page, the limits of commands, the controller's own memory. `misfit` is a queue pair
    /// with more entries than queues may have now, and its entries.
    pub(super) fn breaking_change(
        &self,
        before: Capabilities,
        now: Capabilities,
        is_weighted: bool,
        misfit: Option<(u16, u32)>,
    ) -> Option<String> {
        let change = |field: &str, of: fn(Capabilities) -> u64, why: &str| {
            Some(format!("CAP.{field} is {:#x}, {:#x} before: {why}", of(now), of(before)))
        };
        if now.dstrd() != before.dstrd() {
            return change("DSTRD", |cap| cap.dstrd().into(), "queues have their doorbells elsewhere");
        }
        if let Some((qid, entries)) = misfit {
            let why = format!("queue pair {qid} has {entries} entries");
            return change("MQES", |cap| cap.mqes().into(), &why);
        }
        if now.mqes() == 0 && before.mqes() > 0 {
            return change(
                "MQES",
                |cap| cap.mqes().into(),
                "a queue that can hold a command has two entries",
            );
        }
        if now.mpsmin() != before.mpsmin() {
            return change("MPSMIN", |cap| cap.mpsmin().into(), "the limits of commands have another unit");
        }
        if 1_u64 << self.page_shift > now.page_size_max().max(now.page_size_min()) {
            return change("MPSMAX", |cap| cap.mpsmax().into(), "the memory page in use is too large");
        }
        if !can_select(now, self.command_set) {
            return change("CSS", |cap| cap.css().into(), "the command set in use can't be selected");
        }
        if is_weighted && !now.supports_weighted_round_robin() {
            return change("AMS", |cap| cap.ams().into(), "there is no weighted round robin");
        }
        if own_memory(now) != own_memory(before) {
            return change("CMBS and PMRS", own_memory, "its own memory has come or gone");
        }
        None
    }
}

/// Returns CAP.CMBS and CAP.PMRS as one number.
fn own_memory(cap: Capabilities) -> u64 {
    u64::from(cap.cmbs()) << 1 | u64::from(cap.pmrs())
}

/// Returns `true` if CC.CSS may select `chosen`, a choice of [`command_set`].
fn can_select(cap: Capabilities, chosen: CommandSet) -> bool {
    command_set(cap).0 == chosen || chosen == CommandSet::NVM && cap.supports_nvm()
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
    fn a_change_of_capabilities_is_judged_by_what_relies_on_them() {
        let properties = Properties {
            identify: Box::new(IdentifyController::read_from_bytes(&[0; 4096][..]).unwrap()),
            version: Version::of(1, 4, 0),
            page_shift: 13,
            max_transfer: 1 << 20,
            max_zeroes: u64::MAX,
            granted: 4,
            command_set: CommandSet::NVM,
            queue_entries: 256,
            no_io: None,
        };
        let before = Capabilities::new().with_mqes(255).with_dstrd(1).with_mpsmax(2).with_css(1).with_ams(1);
        let change = |now| properties.breaking_change(before, now, true, None);
        for now in [
            before,
            before.with_to(200).with_crms(3).with_bps(true).with_nssrs(true).with_nsss(true),
            before.with_mqes(1),
            before.with_mqes(1023).with_mpsmax(1).with_css(0x41).with_ams(3),
        ] {
            assert_eq!(change(now), None, "{now:?}");
        }
        let unweighted = properties.breaking_change(before, before.with_ams(0), false, None);
        assert_eq!(unweighted, None, "nothing relies on it");
        let shorter = properties.breaking_change(before, before.with_mqes(63), true, Some((3, 128)));
        assert_eq!(shorter.unwrap(), "CAP.MQES is 0x3f, 0xff before: queue pair 3 has 128 entries");
        for (now, field) in [
            (before.with_dstrd(0), "CAP.DSTRD is 0x0, 0x1 before"),
            (before.with_mqes(0), "CAP.MQES"),
            (before.with_mpsmin(1), "CAP.MPSMIN"),
            (before.with_mpsmax(0), "CAP.MPSMAX"),
            (before.with_css(0x80), "CAP.CSS"),
            (before.with_css(0x40), "CAP.CSS"),
            (before.with_ams(2), "CAP.AMS"),
            (before.with_cmbs(true), "CAP.CMBS and PMRS"),
            (before.with_pmrs(true), "CAP.CMBS and PMRS"),
        ] {
            assert!(change(now).is_some_and(|text| text.starts_with(field)), "{field}: {:?}", change(now));
        }
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

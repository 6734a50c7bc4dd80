//! The options about blocks and commands, by the names that fio's io_uring_cmd engine and SPDK's engine have for them.

use crate::{errors::Failure, ffi};
use upcie_nvme::protection::{Checks, Protect};

/// Defaults of `apptag=` and `apptag_mask=`.
const TAG: u16 = 0x1234;
const MASK: u16 = 0xffff;
/// The checks of `pi_chk=`.
const CHECKS: [(&str, Checks); 3] =
    [("GUARD", Checks::GUARD), ("REFTAG", Checks::REFERENCE_TAG), ("APPTAG", Checks::APPLICATION_TAG)];

/// The command of a write of fio.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WriteMode {
    Write,
    Uncorrectable,
    Zeroes,
    Verify,
}

impl WriteMode {
    /// Returns the value of `write_mode=`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Write => "write",
            Self::Uncorrectable => "uncorrectable",
            Self::Zeroes => "zeroes",
            Self::Verify => "verify",
        }
    }
}

/// The options of a job.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BlockOptions {
    /// `enable_sgl`: scatter gather lists for all data.
    pub(crate) sgl: bool,
    /// `md_per_io_size`: bytes of metadata of a unit.
    pub(crate) metadata: u32,
    /// `pi_act`: the controller makes protection information, and strips it.
    pub(crate) action: bool,
    /// `pi_chk`.
    pub(crate) checks: Checks,
    /// `apptag`, `apptag_mask`.
    pub(crate) tag: u16,
    pub(crate) mask: u16,
    pub(crate) write_mode: WriteMode,
    /// `verify_mode=compare`.
    pub(crate) compares: bool,
}

impl BlockOptions {
    /// Reads the options; `checks` is the text of `pi_chk=`.
    pub(crate) fn new(options: &ffi::Options, checks: &str) -> Result<Self, Failure> {
        let tag = |option: &str, value: u32| {
            u16::try_from(value)
                .map_err(|_| Failure::refused(format!("{option}={value:#x}: an application tag has 16 bits")))
        };
        Ok(Self {
            sgl: options.sgl != 0,
            metadata: options.metadata,
            action: options.action != 0,
            checks: parse_checks(checks)?,
            tag: tag("apptag", options.tag)?,
            mask: tag("apptag_mask", options.mask)?,
            write_mode: match options.write_mode {
                0 => WriteMode::Write,
                1 => WriteMode::Uncorrectable,
                2 => WriteMode::Zeroes,
                _ => WriteMode::Verify,
            },
            compares: options.verify_mode != 0,
        })
    }

    /// Returns `true` if an option about protection differs from its default.
    pub(crate) fn names_protection(&self) -> bool {
        self.first_of_protection().is_some()
    }

    /// Returns the first option about protection that differs from its default.
    pub(crate) fn first_of_protection(&self) -> Option<&'static str> {
        [
            ("pi_act=0", !self.action),
            ("pi_chk=", !self.checks.is_empty()),
            ("apptag=", self.tag != TAG),
            ("apptag_mask=", self.mask != MASK),
        ]
        .into_iter()
        .find_map(|(option, is_given)| is_given.then_some(option))
    }

    /// Returns the protection of the job's commands.
    pub(crate) fn protect(&self) -> Protect {
        let protect = Protect::new().check(self.checks).application_tag(self.tag).application_mask(self.mask);
        if self.action { protect.action() } else { protect }
    }

    /// Returns the protection that a Verify names: the action has no meaning there.
    pub(crate) fn protect_verify(&self) -> Protect {
        Protect::new().check(self.checks).application_tag(self.tag).application_mask(self.mask)
    }
}

fn parse_checks(text: &str) -> Result<Checks, Failure> {
    text.split(',').map(str::trim).filter(|word| !word.is_empty()).try_fold(
        Checks::empty(),
        |checks, word| {
            let known = CHECKS.iter().find(|(name, _)| *name == word);
            known.map(|(_, check)| checks | *check).ok_or_else(|| {
                Failure::refused(format!("pi_chk={text}: {word:?} is no check: GUARD, REFTAG and APPTAG are"))
            })
        },
    )
}

#[cfg(test)]
mod tests {
    use super::{BlockOptions, Checks, parse_checks};
    use crate::ffi;

    #[test]
    fn checks_are_read_in_the_spelling_of_fio() {
        let all = Checks::GUARD | Checks::REFERENCE_TAG | Checks::APPLICATION_TAG;
        for (text, checks) in [
            ("", Checks::empty()),
            ("GUARD", Checks::GUARD),
            ("APPTAG,REFTAG", Checks::REFERENCE_TAG | Checks::APPLICATION_TAG),
            ("GUARD, REFTAG,APPTAG,", all),
        ] {
            assert_eq!(parse_checks(text).expect(text), checks, "{text}");
        }
        let failure = parse_checks("GUARD,guard").unwrap_err();
        assert!(failure.text.contains("\"guard\" is no check"), "{}", failure.text);
    }

    #[test]
    fn defaults_name_no_protection() {
        let given = ffi::Options { action: 1, tag: 0x1234, mask: 0xffff, ..ffi::Options::default() };
        let options = BlockOptions::new(&given, "").expect("the defaults");
        assert!(!options.names_protection() && options.action);
        for (changed, checks, first) in [
            (ffi::Options { action: 0, ..given }, "", "pi_act=0"),
            (given, "REFTAG", "pi_chk="),
            (ffi::Options { tag: 0, ..given }, "", "apptag="),
            (ffi::Options { mask: 0xff, ..given }, "", "apptag_mask="),
        ] {
            let options = BlockOptions::new(&changed, checks).expect("options");
            assert_eq!(options.first_of_protection(), Some(first));
        }
        let failure = BlockOptions::new(&ffi::Options { tag: 0x1_0000, ..given }, "").unwrap_err();
        assert!(failure.text.starts_with("apptag=0x10000: "), "{}", failure.text);
    }
}

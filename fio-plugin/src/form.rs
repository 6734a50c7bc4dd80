//! The form of a namespace's blocks in fio's buffers, and the commands for them, by the job's options.

use crate::{
    errors::Failure,
    options::{BlockOptions, WriteMode},
    workload::{Directive, Plan},
};
use upcie_nvme::{
    Controller, Namespace,
    protection::{BlockFormat, Checks, Protect, ProtectionType},
    spec::{IdentifyNvmController, OptionalCommands},
};

/// Most blocks that a command without data names.
const MOST: u64 = 65536;

/// The blocks of a namespace in the buffers of a job, and what commands are made of the job's I/O.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Form {
    pub(crate) format: BlockFormat,
    /// Bytes of a block in fio's buffers: data, and metadata that is at the end of each block and not the controller's.
    pub(crate) block: u64,
    /// Bytes of a block in the job's metadata buffer; 0 if the commands have none.
    pub(crate) metadata: u64,
    /// The protection that commands name; `None` leaves it to the driver.
    pub(crate) protect: Option<Protect>,
    /// Set if the engine makes and checks protection information.
    pub(crate) in_software: bool,
    pub(crate) write_mode: WriteMode,
    /// Set if reads of fio's verification are Compare commands.
    pub(crate) compares: bool,
    /// Set if writes have a directive, which fio chooses.
    pub(crate) is_directed: bool,
    /// Most blocks of a Read, a Write or a Compare, and of the job's writes.
    pub(crate) most_moved: u64,
    pub(crate) most_written: u64,
}

impl Form {
    /// Decides the form, and refuses what the namespace or its controller can't do.
    pub(crate) fn of(controller: &Controller, namespace: &Namespace, plan: &Plan) -> Result<Self, Failure> {
        let options = &plan.blocks;
        let format = *namespace.format();
        let refuse = |reason: String| {
            Failure::refused(format!("{}: namespace {}: {reason}", controller.name(), namespace.nsid()))
        };
        if let Some(reason) =
            refuse_protection(options, &format).or_else(|| refuse_metadata(options, &format))
        {
            return Err(refuse(reason));
        }
        let strips = format.is_stripped() && options.action;
        // What the driver does by itself, and what leaves the path of plain commands.
        let implied = strips && format.is_separate() && !options.names_protection();
        let protect = format.protection().filter(|_| !implied).map(|_| options.protect());
        let form = Self {
            block: (if strips { format.data_size() } else { format.transfer_size() }) as u64,
            metadata: if format.is_separate() && !strips { format.metadata_size() as u64 } else { 0 },
            protect,
            in_software: protect.is_some() && !options.action,
            write_mode: options.write_mode,
            compares: options.compares && plan.verifies(),
            is_directed: plan.directive != Directive::None,
            most_moved: most_moved(namespace, &format),
            most_written: 0,
            format,
        };
        let reason =
            form.refuse_verification(plan).or_else(|| form.refuse_commands(controller, namespace, plan));
        if let Some(reason) = reason {
            return Err(refuse(reason));
        }
        let most_written = match (options.write_mode, plan.writes()) {
            (WriteMode::Write, _) | (_, false) => form.most_moved,
            (WriteMode::Zeroes, true) => u64::from(namespace.max_write_zeroes()).max(1),
            (mode, true) => most_named(controller, mode, form.format.data_size() as u64),
        };
        Ok(Self { most_written, ..form })
    }

    /// Returns `true` if plain reads and writes, without metadata and protection, do all that the job asks for.
    pub(crate) fn is_plain(&self) -> bool {
        self.block.is_power_of_two()
            && self.metadata == 0
            && self.protect.is_none()
            && self.write_mode == WriteMode::Write
            && !self.compares
            && !self.is_directed
    }

    /// Returns the most blocks of a command of the job.
    pub(crate) fn most(&self) -> u64 {
        self.most_moved.min(self.most_written)
    }

    /// Returns the bytes of metadata that a unit of `len` bytes has in a buffer of its own.
    pub(crate) fn metadata_of(&self, len: u64) -> u64 {
        len / self.block * self.metadata
    }

    /// Checks that `md_per_io_size=` has room for the metadata of a unit of `longest` bytes.
    pub(crate) fn check_room(&self, name: &str, options: &BlockOptions, longest: u64) -> Result<(), Failure> {
        let needed = self.metadata_of(longest);
        if needed <= options.metadata.into() {
            return Ok(());
        }
        Err(Failure::refused(format!(
            "{name}: md_per_io_size={} is less than the {needed} bytes of metadata that a bs of {longest} bytes has in blocks \
             of {}: set it to {needed}{}",
            options.metadata,
            self.format,
            if self.format.is_stripped() {
                ", or pi_act=1 for the controller to make and strip it"
            } else {
                ""
            }
        )))
    }

    /// Returns the reason why fio can't verify the data that the job's commands leave behind.
    fn refuse_verification(&self, plan: &Plan) -> Option<String> {
        if !plan.verifies() {
            return None;
        }
        if self.write_mode != WriteMode::Write && plan.writes() {
            let mode = self.write_mode.name();
            return Some(format!(
                "write_mode={mode} writes none of fio's data, which verify= would look for: leave one out"
            ));
        }
        if self.protect.is_some() && self.block as usize != self.format.data_size() && self.metadata == 0 {
            return Some(format!(
                "verify= covers the bytes where protection information is put, in blocks of {}: give pi_chk= to check by \
                 that, or use a format with the metadata apart, or with nothing but protection information and pi_act=1",
                self.format
            ));
        }
        if self.compares && !plan.has_pattern() {
            return Some(
                "verify_mode=compare knows only patterns: give verify=pattern and verify_pattern= with it"
                    .into(),
            );
        }
        None
    }

    /// Returns the reason why the controller can't carry out the commands that the job asks for.
    fn refuse_commands(&self, controller: &Controller, namespace: &Namespace, plan: &Plan) -> Option<String> {
        let lacks = |command| !controller.identify().optional_commands().contains(command);
        let has_no = |option: &str, command: &str| {
            Some(format!(
                "{option} needs the optional command {command}, which the controller does not have (ONCS)"
            ))
        };
        if plan.writes() {
            let option = format!("write_mode={}", self.write_mode.name());
            match self.write_mode {
                WriteMode::Uncorrectable if lacks(OptionalCommands::WRITE_UNCORRECTABLE) => {
                    return has_no(&option, "Write Uncorrectable");
                }
                WriteMode::Zeroes if namespace.max_write_zeroes() == 0 => {
                    return has_no(&option, "Write Zeroes");
                }
                WriteMode::Verify if lacks(OptionalCommands::VERIFY) => return has_no(&option, "Verify"),
                WriteMode::Uncorrectable | WriteMode::Verify if self.is_directed => {
                    return Some(format!("{option} has no placement: leave fdp= and dataplacement= out"));
                }
                _ => {}
            }
        }
        if self.compares {
            if lacks(OptionalCommands::COMPARE) {
                return has_no("verify_mode=compare", "Compare");
            }
            if self.format.is_separate() || self.protect.is_some() {
                return Some(format!(
                    "verify_mode=compare is for blocks without protection and without metadata apart, and these are of {}: \
                     use verify_mode=read",
                    self.format
                ));
            }
        }
        (plan.blocks.sgl && !controller.identify().supports_sgls()).then(|| {
            "enable_sgl=1: the controller takes no scatter gather lists for I/O (SGLS is 0): leave it out"
                .into()
        })
    }
}

/// Returns the reason why the blocks can't have the protection that the options name.
fn refuse_protection(options: &BlockOptions, format: &BlockFormat) -> Option<String> {
    let Some(protection) = format.protection() else {
        let option = options.first_of_protection()?;
        return Some(format!(
            "{option} is for protection information, which blocks of {format} do not have: leave it out, or use `upcie \
             format` with --protection"
        ));
    };
    if options.checks.contains(Checks::REFERENCE_TAG) && protection.kind() == ProtectionType::Type3 {
        return Some(
            "pi_chk=REFTAG: with protection type 3 the reference tag is the application's, and controllers refuse to check \
             it: leave REFTAG out"
                .into(),
        );
    }
    None
}

/// Returns the reason why `md_per_io_size=` has no use.
fn refuse_metadata(options: &BlockOptions, format: &BlockFormat) -> Option<String> {
    (options.metadata != 0 && !format.is_separate()).then(|| {
        format!(
            "md_per_io_size={} is for metadata apart from the data, which blocks of {format} do not have: leave it out{}",
            options.metadata,
            if format.is_extended() { " (bs counts the metadata at the end of each block)" } else { "" }
        )
    })
}

/// Returns the most blocks of a command that moves data. The metadata of each part of a unit begins at a dword.
fn most_moved(namespace: &Namespace, format: &BlockFormat) -> u64 {
    let most = (namespace.max_transfer() / format.transfer_size().max(1)) as u64;
    let aligned = if format.metadata_size().is_multiple_of(4) { most } else { most & !3 };
    aligned.max(1)
}

/// Returns the most blocks of `size` bytes that a command without data names: VSL, WUSL of newer controllers.
fn most_named(controller: &Controller, mode: WriteMode, size: u64) -> u64 {
    let Ok(limits) = controller.identify_as::<IdentifyNvmController>(&Default::default()) else {
        return MOST;
    };
    let page = controller.capabilities().page_size_min();
    let bytes = match mode {
        WriteMode::Verify => limits.max_verify(page),
        _ => limits.max_write_uncorrectable(page),
    };
    bytes.map_or(MOST, |bytes| (bytes / size).clamp(1, MOST))
}

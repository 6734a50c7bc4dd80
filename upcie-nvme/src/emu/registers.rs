//! The controller's registers, which clients access by message.

use super::{Options, boot::BootProperties, config::copy_at, layout::DSTRD, own_memory::OwnProperties};
use crate::spec::{
    AdminQueueAttributes, ArbitrationMechanism, BootPartitionSelect, Capabilities, CommandSet, Configuration,
    ControllerStatus, NSSR_SIGNATURE, ReadyTimeouts, ShutdownNotification, ShutdownStatus, Version, offset,
};

/// Times to become ready, in units of 500 ms: CAP.TO of version 1.4, and CRTO.CRWMT since 2.0, which is more than CAP.TO can tell.
const READY: u8 = 2;
const READY_WITH_MEDIA: u16 = 300;
/// The largest CC.MPS where the smallest is not larger: 64 KiB.
const MPSMAX: u8 = 4;
/// Entry sizes of I/O queues, as powers of two.
const IOSQES: u8 = 6;
const IOCQES: u8 = 4;

/// The action that a write to a register requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    /// CC.EN went to 1.
    Enable,
    /// CC.EN went to 0.
    Disable,
    /// CC.SHN was set.
    Shutdown,
    /// NSSR was written with its value.
    ResetSubsystem,
    /// BPRSEL was written.
    ReadBootPartition,
}

/// The registers' values.
#[derive(Debug, Default)]
pub(super) struct Registers {
    version: Version,
    pub cap: Capabilities,
    crto: ReadyTimeouts,
    pub cc: Configuration,
    pub csts: ControllerStatus,
    pub aqa: AdminQueueAttributes,
    pub asq: u64,
    pub acq: u64,
    /// INTMS and INTMC: no effect with MSI-X.
    pub mask: u32,
    pub boot: BootProperties,
}

impl Registers {
    /// Makes the state after power-on, of one of `controllers` in the NVM subsystem. Only a controller alone can reset it (NSSR):
    /// a reset of all would take the controllers of the other hosts from them.
    pub fn new(options: &Options, controllers: u16) -> Self {
        let mpsmin = (options.mpsmin.ilog2() - 12) as u8;
        let crwmt = if options.is_new() { READY_WITH_MEDIA } else { 0 };
        let crto = ReadyTimeouts::new().with_crwmt(crwmt);
        let cap = Capabilities::new()
            .with_mqes((options.depth - 1) as u16)
            .with_cqr(true)
            .with_ams(options.wrr.into())
            .with_to(if options.is_new() { crwmt.min(0xff) as u8 } else { READY })
            .with_dstrd(DSTRD)
            .with_nssrs(controllers == 1)
            .with_css(options.command_sets())
            .with_bps(options.boot_partitions != 0)
            .with_mpsmin(mpsmin)
            .with_mpsmax(MPSMAX.max(mpsmin))
            .with_pmrs(options.pmr != 0)
            .with_cmbs(options.cmb != 0)
            .with_crms(options.is_new().into());
        Self { version: options.version, cap, crto, ..Self::default() }
    }

    /// Reads any bytes of the BAR of a secondary controller that is offline: CSTS.CFS is 1, and all else 0.
    pub fn read_offline(offset: u64, data: &mut [u8]) {
        let mut image = [0_u8; offset::CSTS + 4];
        let csts = ControllerStatus::new().with_cfs(true);
        image[offset::CSTS..].copy_from_slice(&csts.into_bits().to_le_bytes());
        copy_at(&image, offset, data);
    }

    /// Reads any bytes of the registers; reserved and absent ones are 0. `boot` is BPINFO.
    pub fn read(&self, boot: u32, own: &OwnProperties, offset: u64, data: &mut [u8]) {
        let mut image = [0_u8; offset::PMRMSCU + 4];
        let mut put = |at: usize, bytes: &[u8]| image[at..at + bytes.len()].copy_from_slice(bytes);
        put(offset::CAP, &self.cap.into_bits().to_le_bytes());
        put(offset::VS, &self.version.into_bits().to_le_bytes());
        put(offset::INTMS, &self.mask.to_le_bytes());
        put(offset::INTMC, &self.mask.to_le_bytes());
        put(offset::CC, &self.cc.into_bits().to_le_bytes());
        put(offset::CSTS, &self.csts.into_bits().to_le_bytes());
        put(offset::AQA, &self.aqa.into_bits().to_le_bytes());
        put(offset::ASQ, &self.asq.to_le_bytes());
        put(offset::ACQ, &self.acq.to_le_bytes());
        put(offset::CMBLOC, &own.cmb.location.into_bits().to_le_bytes());
        put(offset::CMBSZ, &own.cmb.size.into_bits().to_le_bytes());
        put(offset::BPINFO, &boot.to_le_bytes());
        put(offset::BPRSEL, &self.boot.select.into_bits().to_le_bytes());
        put(offset::BPMBL, &self.boot.buffer.to_le_bytes());
        put(offset::CMBMSC, &own.cmb.control.into_bits().to_le_bytes());
        put(offset::CMBSTS, &own.cmb.status.to_le_bytes());
        put(offset::CRTO, &self.crto.into_bits().to_le_bytes());
        put(offset::PMRCAP, &own.pmr.capabilities.into_bits().to_le_bytes());
        put(offset::PMRCTL, &own.pmr.control.to_le_bytes());
        put(offset::PMRSTS, &own.pmr.status.into_bits().to_le_bytes());
        put(offset::PMRMSCL, &own.pmr.space.to_le_bytes());
        copy_at(&image, offset, data);
    }

    /// Writes the register of 4 bytes at `offset`, or a half of one of 8. Ignores read-only registers, and
    /// registers that may not be written while the controller is enabled (Base, "Controller Properties": AQA,
    /// ASQ and ACQ).
    pub fn write(&mut self, offset: usize, value: u32) -> Option<Action> {
        if self.cc.en() && (offset::AQA..offset::ACQ + 8).contains(&offset) {
            tracing::warn!(
                offset,
                value,
                "ignored: the admin queue's registers change only while CC.EN is 0"
            );
            return None;
        }
        let low = |old: u64| old & !0xffff_ffff | u64::from(value & !0xfff);
        let high = |old: u64| old & 0xffff_ffff | u64::from(value) << 32;
        match offset {
            offset::INTMS => self.mask |= value,
            offset::INTMC => self.mask &= !value,
            offset::NSSR if value == NSSR_SIGNATURE && self.cap.nssrs() => {
                return Some(Action::ResetSubsystem);
            }
            offset::NSSR => {}
            // Writing 1 clears NSSRO; the others are read-only.
            offset::CSTS if ControllerStatus::from_bits(value).nssro() => self.csts.set_nssro(false),
            offset::CC => return self.configure(Configuration::from_bits(value)),
            offset::AQA => self.aqa = AdminQueueAttributes::from_bits(value & 0x0fff_0fff),
            offset::ASQ => self.asq = low(self.asq),
            0x2c => self.asq = high(self.asq),
            offset::ACQ => self.acq = low(self.acq),
            0x34 => self.acq = high(self.acq),
            offset::BPRSEL if self.cap.bps() => {
                self.boot.select = BootPartitionSelect::from_bits(value & 0xbfff_ffff);
                return Some(Action::ReadBootPartition);
            }
            offset::BPMBL if self.cap.bps() => self.boot.buffer = low(self.boot.buffer),
            0x4c if self.cap.bps() => self.boot.buffer = high(self.boot.buffer),
            _ => tracing::debug!(offset, value, "a write to a register that can't be written"),
        }
        None
    }

    fn configure(&mut self, new: Configuration) -> Option<Action> {
        let old = self.cc;
        let mut new = Configuration::from_bits(new.into_bits() & 0x00ff_fff1);
        if old.en() && new.en() {
            let fixed = new.with_css(old.css()).with_mps(old.mps()).with_ams(old.ams());
            if fixed != new {
                tracing::warn!(
                    cc = new.into_bits(),
                    "CC.CSS, MPS and AMS change only while CC.EN is 0: they keep their values"
                );
            }
            new = fixed;
        }
        self.cc = new;
        match (old.en(), new.en()) {
            (true, false) => Some(Action::Disable),
            (false, true) => Some(Action::Enable),
            _ if new.shn() != ShutdownNotification::NONE && self.csts.shst() == ShutdownStatus::NORMAL => {
                Some(Action::Shutdown)
            }
            _ => None,
        }
    }

    /// Returns the problem with the configuration that is to be enabled, if there is one.
    pub fn configuration_error(&self) -> Option<&'static str> {
        let (cc, aqa) = (self.cc, self.aqa);
        match () {
            () if !self.has_command_set(cc.css()) => Some("CC.CSS is not in CAP.CSS"),
            () if cc.mps() > self.cap.mpsmax() => Some("CC.MPS is above CAP.MPSMAX"),
            () if cc.mps() < self.cap.mpsmin() => Some("CC.MPS is below CAP.MPSMIN"),
            () if !self.arbitrates_by(cc.ams()) => Some("CC.AMS is not in CAP.AMS"),
            // The entry sizes may be set as late as the first I/O queue.
            () if !matches!(cc.iosqes(), 0 | IOSQES) => Some("CC.IOSQES is not 6"),
            () if !matches!(cc.iocqes(), 0 | IOCQES) => Some("CC.IOCQES is not 4"),
            () if (self.asq | self.acq) & (cc.page_size() - 1) != 0 => {
                Some("ASQ or ACQ is not aligned to CC.MPS")
            }
            () if aqa.asqs() == 0 || aqa.acqs() == 0 => Some("AQA asks for an admin queue of one entry"),
            () => None,
        }
    }

    /// Returns `true` if CAP.CSS has the command set; 0, as some controllers report, counts as the NVM
    /// command set.
    fn has_command_set(&self, set: CommandSet) -> bool {
        match set {
            CommandSet::NVM => self.cap.supports_nvm() || self.cap.css() == 0,
            CommandSet::ALL => self.cap.supports_command_set_profiles(),
            CommandSet::ADMIN_ONLY => self.cap.css() & 1 << 7 != 0,
            _ => false,
        }
    }

    fn arbitrates_by(&self, mechanism: ArbitrationMechanism) -> bool {
        mechanism == ArbitrationMechanism::ROUND_ROBIN
            || mechanism == ArbitrationMechanism::WEIGHTED && self.cap.supports_weighted_round_robin()
    }

    /// Returns `true` if the entry sizes allow I/O queues.
    pub fn takes_io_queues(&self) -> bool {
        self.cc.iosqes() == IOSQES && self.cc.iocqes() == IOCQES && self.cc.css() != CommandSet::ADMIN_ONLY
    }

    /// Resets the controller after CC.EN went to 0. The admin queues' registers keep their values, and CSTS.NSSRO tells of an
    /// NVM subsystem reset until it is cleared.
    pub fn disable(&mut self) {
        self.csts = ControllerStatus::new().with_nssro(self.csts.nssro());
        self.mask = 0;
    }
}

//! From a device to a running controller, and back.

use super::{
    Admin, ControllerOptions, Inner, Live, Registers,
    device_memory::{self, Windows},
    lock, removal, unique,
};
use crate::{
    Error, Result,
    interrupt::{Backoff, Vectors},
    prp::{BufferLists, MAX_TRANSFER},
    spec::{
        AdminQueueAttributes, ArbitrationMechanism, Cns, Command, CommandSet, Configuration, Csi, FeatureId,
        IdentifyController, IdentifyNvmController, NumberOfQueues, ShutdownNotification, ShutdownStatus,
        Version, offset,
    },
};
use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64},
    },
    time::{Duration, Instant},
};
use upcie_core::{
    dma::{DmaBuf, Heap},
    memory::host_page_size,
    process::Owner,
    transport::Device,
};
use zerocopy::FromBytes;

/// Entries of the admin queues.
const ADMIN_ENTRIES: u32 = 32;
/// A shutdown may take longer than becoming ready: caches are written back.
const SHUTDOWN_MIN: Duration = Duration::from_secs(10);

pub(super) fn bring_up(device: Arc<dyn Device>, options: ControllerOptions) -> Result<Inner> {
    let name: Arc<str> = device.name().into();
    let registers = Registers::open(&*device, name.clone())?;
    registers.log_state();
    let cap = registers.capabilities();
    if !cap.supports_nvm() {
        return Err(unsupported(&name, "it does not support the NVM command set (CAP.CSS)"));
    }
    if cap.max_queue_entries() < 2 {
        return Err(unsupported(&name, "its queues have no room for a command (CAP.MQES is 0)"));
    }
    if options.arbitration.is_some() && !cap.supports_weighted_round_robin() {
        return Err(unsupported(
            &name,
            "it has no weighted round robin with urgent priority class (CAP.AMS bit 0 is 0): open it without arbitration",
        ));
    }
    // Pages as large as the host's, so that what is one page for the controller is contiguous in memory.
    let page = (host_page_size() as u64).min(cap.page_size_max());
    if page < cap.page_size_min() {
        let least = cap.page_size_min();
        return Err(unsupported(
            &name,
            format!("its memory pages have at least {least} bytes, the host's fewer"),
        ));
    }
    // Buffers of other controllers in the address space come with lists of pages of their size.
    let agreed = device.dma().agree(page);
    if agreed > page || agreed < cap.page_size_min() || !agreed.is_power_of_two() {
        let (least, most) = (cap.page_size_min(), cap.page_size_max());
        return Err(unsupported(
            &name,
            format!(
                "its memory pages have {least} to {most} bytes, and those of the controllers in its address space \
                 {agreed}: open it by itself, or first"
            ),
        ));
    }
    let page = agreed;
    let page_shift = page.ilog2();
    let vectors = Vectors::new(&*device, options.irq)?;
    // A controller works without it: a removal then waits until the program ends.
    let wanted_back = removal::wire(&*device).unwrap_or_else(|error| {
        tracing::warn!(device = %name, %error, "no notice will come when the kernel wants the device back");
        None
    });
    tracing::debug!(device = %name, page_size = page, interrupts = ?vectors.kind(), "bringing it up");
    disable(&registers, &name)?;
    device_memory::turn_off(&registers)?;
    let heap = Heap::new(device.dma(), options.pages, Some(Box::new(BufferLists { page_shift })));
    let live = Arc::new(Live {
        controller: unique(),
        namespaces: AtomicU64::new(unique()),
        device_memory: Windows::default(),
    });
    let entries = ADMIN_ENTRIES.min(cap.max_queue_entries());
    let admin = Admin::new(&registers, &heap, &name, &live, entries, page_shift)?;
    let (sq, cq) = admin.rings();
    let aqa = AdminQueueAttributes::new().with_asqs(entries as u16 - 1).with_acqs(entries as u16 - 1);
    registers.write_u32(offset::AQA, aqa.into_bits())?;
    registers.write_u64(offset::ASQ, sq)?;
    registers.write_u64(offset::ACQ, cq)?;
    let mut inner = Inner {
        admin: Mutex::new(admin),
        blocking: Mutex::default(),
        retired: Mutex::default(),
        queue_ids: Mutex::default(),
        vectors,
        wanted_back,
        silent: AtomicBool::new(false),
        memory_buffer: Mutex::default(),
        persistent_memory: Mutex::default(),
        heap,
        live,
        version: registers.version()?,
        registers,
        identify: Box::new(IdentifyController::read_from_bytes(&[0; 4096][..]).expect("one page")),
        page_shift,
        max_transfer: page,
        max_zeroes: u64::MAX,
        granted: 0,
        options,
        owner: Owner::current(),
        name,
        device,
    };
    // From here on a failure drops `inner`, which stops the controller.
    inner.enable()?;
    inner.identify_controller()?;
    inner.negotiate_queues()?;
    if let Some(arbitration) = inner.options.arbitration {
        let command = Command::set_features(FeatureId::ARBITRATION, arbitration.into_bits());
        inner.admin_data(&command, DmaBuf::empty(), "Set Features (Arbitration)")?;
    }
    Ok(inner)
}

fn unsupported(device: &str, reason: impl Into<String>) -> Error {
    Error::Unsupported { device: device.into(), reason: reason.into() }
}

/// Clears CC.EN and waits until the controller has stopped.
fn disable(registers: &Registers, name: &str) -> Result<()> {
    let cc = registers.configuration()?;
    if cc.en() {
        registers.configure(cc.with_en(false))?;
    }
    wait(registers.patience(), name, "waiting for the controller to stop (CSTS.RDY = 0)", || {
        Ok(!registers.status()?.rdy())
    })
}

/// Waits until `done`, which reads registers, is true.
pub(super) fn wait(
    after: Duration,
    device: &str,
    operation: &str,
    mut done: impl FnMut() -> Result<bool>,
) -> Result<()> {
    let mut backoff = Backoff::of_registers(after);
    let start = Instant::now();
    loop {
        if done()? {
            tracing::debug!(device, after = ?start.elapsed(), limit = ?after, "{operation}: done");
            return Ok(());
        }
        if !backoff.pause() {
            let (device, operation) = (device.into(), operation.into());
            return Err(Error::Timeout { device, operation, after, kept: false });
        }
    }
}

impl Inner {
    fn enable(&self) -> Result<()> {
        let arbitration = match self.options.arbitration {
            Some(_) => ArbitrationMechanism::WEIGHTED,
            None => ArbitrationMechanism::ROUND_ROBIN,
        };
        let cc = Configuration::new()
            .with_css(CommandSet::NVM)
            .with_mps((self.page_shift - 12) as u8)
            .with_ams(arbitration)
            .with_shn(ShutdownNotification::NONE)
            // Entries of 2^6 and 2^4 bytes.
            .with_iosqes(6)
            .with_iocqes(4)
            .with_en(true);
        self.registers.configure(cc)?;
        let operation = "waiting for the controller to become ready (CSTS.RDY = 1)";
        wait(self.registers.ready_patience()?, &self.name, operation, || {
            let status = self.registers.status()?;
            if status.cfs() {
                return Err(Error::Fatal { device: self.name.to_string(), operation: operation.into() });
            }
            Ok(status.rdy())
        })
    }

    fn identify_controller(&mut self) -> Result<()> {
        let command = Command::identify(Cns::CONTROLLER, 0, 0);
        let page = self.identify_page(&command, "Identify (controller)")?;
        let identify = IdentifyController::read_from_bytes(&page[..]).expect("one page");
        // The low nibble is the required size of an entry, as a power of two.
        if identify.sqes & 15 > 6 || identify.cqes & 15 > 4 {
            return Err(unsupported(&self.name, "it requires queue entries larger than 64 and 16 bytes"));
        }
        let mdts = identify.max_transfer(self.registers.capabilities().page_size_min());
        self.max_transfer = mdts.unwrap_or(MAX_TRANSFER).min(MAX_TRANSFER);
        *self.identify = identify;
        tracing::debug!(
            device = %self.name,
            model = %self.identify.model(),
            serial = %self.identify.serial(),
            max_transfer = self.max_transfer,
            "identified"
        );
        self.identify_limits()
    }

    /// Limits that MDTS says nothing of, of a controller that may report them.
    fn identify_limits(&mut self) -> Result<()> {
        if self.version < Version::of(2, 0, 0) {
            return Ok(());
        }
        let command = Command::identify_command_set(Cns::COMMAND_SET_CONTROLLER, 0, Csi::NVM);
        let page = match self.identify_page(&command, "Identify (limits of the NVM command set)") {
            Ok(page) => page,
            Err(Error::Status { .. }) => return Ok(()),
            Err(error) => return Err(error),
        };
        let limits = IdentifyNvmController::read_from_bytes(&page[..]).expect("one page");
        let page_size = self.registers.capabilities().page_size_min();
        self.max_zeroes = limits.max_write_zeroes(page_size).unwrap_or(u64::MAX);
        Ok(())
    }

    fn negotiate_queues(&mut self) -> Result<()> {
        let wanted = u32::from(self.options.queues.max(1));
        let feature = NumberOfQueues::of(wanted, wanted);
        let command = Command::set_features(FeatureId::NUMBER_OF_QUEUES, feature.into_bits());
        let (granted, _) = self.admin_data(&command, DmaBuf::empty(), "Set Features (Number of Queues)")?;
        let granted = NumberOfQueues::from_bits(granted);
        // A controller may grant more than was asked for.
        let pairs = granted.submission_queues().min(granted.completion_queues()).min(wanted);
        self.granted = pairs as u16;
        tracing::debug!(
            device = %self.name,
            wanted,
            submission = granted.submission_queues(),
            completion = granted.completion_queues(),
            "queues granted"
        );
        *lock(&self.queue_ids) = vec![false; pairs as usize];
        Ok(())
    }

    /// Shuts the controller down and disables it. `Ok` means that it no longer touches memory.
    pub(super) fn stop(&self) -> Result<()> {
        let cc = self.registers.configuration()?;
        if cc.en() {
            self.registers.configure(cc.with_shn(ShutdownNotification::NORMAL))?;
            let after = self.registers.patience().max(SHUTDOWN_MIN);
            let shut = wait(after, &self.name, "waiting for the shutdown (CSTS.SHST)", || {
                let status = self.registers.status()?;
                Ok(status.cfs() || status.shst() == ShutdownStatus::COMPLETE)
            });
            if let Err(error @ Error::Timeout { .. }) = shut {
                tracing::warn!(device = %self.name, %error, "disabling it all the same");
            } else {
                shut?;
            }
        }
        disable(&self.registers, &self.name)
    }
}

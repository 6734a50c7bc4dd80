//! Bring-up: from a device to a running controller.

use super::{
    Admin, Calls, ControllerBuilder, DeviceMemory, HostMemory, Inner, Limit, Link, Notice, Properties,
    QueueIds, Registers, Subsystem,
    admin::ENTRIES,
    device_memory,
    effects::Effects,
    features::Features,
    lent::HostBuffer,
    permits::Aborts,
    properties::{command_set, entry_sizes},
    resets::{Resets, Shapes},
    shared_look::SharedLook,
    stopping,
    transitions::{disable_patience, enable},
    vectors::Vectors,
};
use crate::{
    Error, NoIo, Result,
    engine::{BufferLists, CommandLimits, Live, MAX_TRANSFER},
    spec::{
        AdminQueueAttributes, Cns, Command, CommandSet, Csi, FeatureId, IdentifyController,
        IdentifyNvmController, NumberOfQueues, Version,
    },
};
use std::sync::Arc;
use upcie_core::{
    deadline::Budget,
    device::{Claim, Device},
    dma::{DmaBuf, Heap},
    irq::IrqKind,
    memory::{PageSize, host_page_size},
};
use zerocopy::FromBytes;

pub(super) fn bring_up(device: Arc<dyn Device>, options: ControllerBuilder) -> Result<Inner> {
    // Before the first register is written: in a forked child the device is its parent's.
    device.dma().check_owner("bringing the controller up")?;
    let device = Claim::new(device)?;
    let name: Arc<str> = device.name().into();
    let registers = {
        let _budget = Budget::new(options.timeout);
        let registers = Registers::open(&device, name.clone(), options.clock.clone())?;
        registers.log_state();
        registers
    };
    let cap = registers.capabilities();
    let (command_set, mut no_io) = command_set(cap);
    if command_set == CommandSet::NVM && !cap.supports_nvm() {
        tracing::warn!(device = %name, css = cap.css(), "CAP.CSS names no command set: assuming the NVM command set");
    }
    let queue_entries = registers.quirks().most_entries(cap);
    if queue_entries < 2 {
        no_io = no_io.or(Some(NoIo::QueueEntries));
    }
    // One deadline for all messages; each wait below has its own, too.
    let ready = registers.ready_patience()?;
    let waits = disable_patience(&registers)? + ready + registers.patience();
    let _budget = Budget::new(options.timeout.saturating_add(waits));
    if options.arbitration.is_some() && !cap.supports_weighted_round_robin() {
        return Err(unsupported(
            &name,
            "it has no weighted round robin with urgent priority class (CAP.AMS bit 0 is 0): open it without arbitration",
        ));
    }
    // The host's page size if the controller supports it, so that one of its pages is one page in memory.
    let (least, most) = (cap.page_size_min(), cap.page_size_max());
    let page = (host_page_size() as u64).min(most).max(least);
    if let Some(reason) = page_refusal(page, options.pages).filter(|_| device.dma().is_physical()) {
        return Err(unsupported(&name, reason));
    }
    // Buffers of other controllers in the address space have PRP lists for pages of their size.
    let agreed = device.dma().agree(page);
    if agreed > most.max(least) || agreed < least || !agreed.is_power_of_two() {
        return Err(unsupported(
            &name,
            format!(
                "its memory pages have {least} to {most} bytes, but the controllers in its address space use \
                 {agreed}: open it alone, or first"
            ),
        ));
    }
    let page = agreed;
    let page_shift = page.ilog2();
    let vectors = Vectors::new(&*device, options.irq)?;
    let removal =
        Notice::wire(&*device, IrqKind::Request, "no notice will come when the kernel removes the device");
    let pci_error = Notice::wire(&*device, IrqKind::Error, "no notice will come of an error on its PCI link");
    tracing::debug!(device = %name, page_size = page, interrupts = ?vectors.kind(), "bringing it up");
    stopping::disable(&device, &registers)?;
    device_memory::turn_off(&registers)?;
    if options.untrusted_device {
        device.dma().distrust();
    }
    let private = Heap::private(device.dma(), options.pages, options.untrusted_device);
    let heap = Heap::with_lists(options.pages, Box::new(BufferLists { page_shift }), &private)?;
    let live = Arc::new(Live::new()?);
    let mut admin = Admin::new(&registers, &private, &name, &live, page_shift)?;
    let (sq, cq) = admin.addresses();
    let last = ENTRIES as u16 - 1;
    let aqa = AdminQueueAttributes::new().with_asqs(last).with_acqs(last);
    // SAFETY: `admin` has just zeroed rings of so many entries there; it goes into `inner`, which keeps it until the controller
    // has stopped.
    unsafe { registers.set_admin_queue(aqa, sq, cq) }?;
    let properties = Properties {
        identify: Box::new(IdentifyController::read_from_bytes(&[0; 4096][..]).expect("one page")),
        version: registers.version()?,
        page_shift,
        max_transfer: page.min(MAX_TRANSFER),
        max_zeroes: u64::MAX,
        granted: 0,
        command_set,
        queue_entries,
        no_io,
    };
    let mut inner = Inner {
        admin,
        calls: Calls::default(),
        queue_ids: QueueIds::default(),
        resets: Resets::default(),
        aborts: Aborts::default(),
        features: Features::default(),
        effects: Effects::default(),
        shapes: Shapes::default(),
        subsystem: Arc::default(),
        vectors,
        removal,
        pci_error,
        pci_look: SharedLook::default(),
        device_memory: DeviceMemory::default(),
        host_buffer: HostBuffer::default(),
        memory: HostMemory::new(heap, private),
        properties,
        link: Link { name, registers, live, options, look: SharedLook::default() },
        device,
        closing: None,
    };
    // From here on a failure drops `inner`, which stops the controller.
    enable(&inner.link, &inner.properties)?;
    // One timeout for all admin commands from here on.
    let (timeout, clock) = (inner.timeout(), inner.shared_clock().clone());
    let mut limit = Limit::new(&*clock, timeout);
    identify_controller(&mut inner, &mut limit)?;
    let limits = identify_limits(&mut inner, &mut limit)?;
    negotiate_queues(&mut inner, &mut limit)?;
    if let (Some(arbitration), None) = (inner.link.options.arbitration, inner.properties.no_io) {
        let command = Command::set_features(FeatureId::ARBITRATION, arbitration.into_bits());
        inner.admin_data(&command, DmaBuf::empty(), "Set Features (Arbitration)", &mut limit)?;
    }
    if inner.properties.no_io.is_none() {
        inner.check_sgl(inner.sgl_use())?;
    }
    inner.tell_behavior(&mut limit)?;
    inner.link.live.set_limits(limits.with_copy_formats(inner.copy_formats()));
    Ok(inner)
}

/// Explains why memory in pages of `pages` has no memory page of `bytes` without an IOMMU, if it is so: rings are aligned to a page and
/// contiguous, and only the bytes of one huge page are sure to be.
fn page_refusal(bytes: u64, pages: Option<PageSize>) -> Option<String> {
    let huge = pages.unwrap_or(PageSize::Huge2M).bytes() as u64;
    (bytes > huge).then(|| {
        format!(
            "its smallest memory page has {bytes} bytes (CAP.MPSMIN), and without an IOMMU it has to lie in one huge page: \
             use pages of 1 GiB (ControllerBuilder::pages), or an IOMMU (`vfio:`, `iommufd:`)"
        )
    })
}

fn unsupported(device: &str, reason: impl Into<String>) -> Error {
    Error::unsupported(device, reason)
}

fn identify_controller(inner: &mut Inner, limit: &mut Limit<'_>) -> Result<()> {
    let command = Command::identify(Cns::CONTROLLER, 0, 0);
    let page = inner.identify_page(&command, "Identify (controller)", limit)?;
    let identify = IdentifyController::read_from_bytes(&page[..]).expect("one page");
    inner.properties.no_io = inner.properties.no_io.or(entry_sizes(&identify));
    let mdts = identify.max_transfer(inner.link.registers.capabilities().page_size_min());
    inner.properties.max_transfer = mdts.unwrap_or(MAX_TRANSFER).min(MAX_TRANSFER);
    *inner.properties.identify = identify;
    inner.subsystem = Subsystem::of(&inner.properties.identify);
    tracing::debug!(
        device = %inner.link.name,
        model = %inner.properties.identify.model(),
        serial = %inner.properties.identify.serial(),
        max_transfer = inner.properties.max_transfer,
        "identified"
    );
    Ok(())
}

/// Reads the limits that MDTS does not cover, from controllers that may report them.
fn identify_limits(inner: &mut Inner, limit: &mut Limit<'_>) -> Result<CommandLimits> {
    if inner.properties.version < Version::of(2, 0, 0) || inner.properties.no_io.is_some() {
        return Ok(CommandLimits::NONE);
    }
    let command = Command::identify_command_set(Cns::COMMAND_SET_CONTROLLER, 0, Csi::NVM);
    let page = match inner.identify_page(&command, "Identify (limits of the NVM command set)", limit) {
        Ok(page) => page,
        Err(error) if error.status().is_some() => return Ok(CommandLimits::NONE),
        Err(error) => return Err(error),
    };
    let limits = IdentifyNvmController::read_from_bytes(&page[..]).expect("one page");
    let page_size = inner.link.registers.capabilities().page_size_min();
    inner.properties.max_zeroes = limits.max_write_zeroes(page_size).unwrap_or(u64::MAX);
    Ok(CommandLimits::of(&limits, page_size))
}

fn negotiate_queues(inner: &mut Inner, limit: &mut Limit<'_>) -> Result<()> {
    if inner.properties.no_io.is_some() {
        return Ok(());
    }
    let wanted = u32::from(inner.link.options.queues.max(1));
    let feature = NumberOfQueues::of(wanted, wanted);
    let command = Command::set_features(FeatureId::NUMBER_OF_QUEUES, feature.into_bits());
    let what = "Set Features (Number of Queues)";
    let granted = match inner.admin_data(&command, DmaBuf::empty(), what, limit) {
        Ok((granted, _)) => NumberOfQueues::from_bits(granted),
        Err(error) => {
            let Some(status) = error.status() else { return Err(error) };
            inner.properties.no_io = Some(NoIo::NoQueues { status });
            return Ok(());
        }
    };
    // A controller may grant more than was asked for.
    let pairs = granted.submission_queues().min(granted.completion_queues()).min(wanted);
    inner.properties.granted = pairs as u16;
    tracing::debug!(
        device = %inner.link.name,
        wanted,
        submission = granted.submission_queues(),
        completion = granted.completion_queues(),
        "queues granted"
    );
    inner.queue_ids.grant(pairs as u16);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_memory_page_above_a_huge_page_is_refused_with_its_size() {
        assert_eq!(page_refusal(2 << 20, None), None);
        assert_eq!(page_refusal(128 << 20, Some(PageSize::Huge1G)), None);
        let reason = page_refusal(4 << 20, None).unwrap();
        assert!(
            reason.contains("4194304 bytes (CAP.MPSMIN)") && reason.contains("pages of 1 GiB"),
            "{reason}"
        );
    }
}

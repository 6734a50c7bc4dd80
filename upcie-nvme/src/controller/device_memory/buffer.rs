//! The controller memory buffer (Base Specification, "Controller Memory Buffer").

use super::place::{Mapped, Owner, Place, broken, map_memory};
use crate::{
    Error, Result,
    controller::Link,
    engine::Window,
    spec::{CmbLocation, CmbMemorySpaceControl, CmbSize, offset},
};
use std::{fmt, sync::Arc};
use upcie_core::{
    dma::{DmaBuf, Heap},
    events::emit,
    mmio::Caching,
};

const WHAT: &str = "memory buffer";

/// Memory in the controller, behind a base address register, that can hold commands and their data.
///
/// Buffers from it go into commands like any others, on this controller and (peer-to-peer) on those [opened
/// beside](crate::ControllerBuilder::open_beside) it. They give no slice; read and write them with
/// [`read_at`](DmaBuf::read_at) and [`write_at`](DmaBuf::write_at), across the bus: reads are slow.
///
/// The driver checks that the buffer lies in the base address register as its registers say; that the
/// controller takes the address that it is given (CMBSTS.CBAI); that nothing else in the address space has
/// that address; that data of Read and Write commands may be there ([`reads`](Self::reads),
/// [`writes`](Self::writes)), and only in part if the controller allows that; that a buffer belongs to the
/// address space of the queue that it is given to. For peer-to-peer it checks that the IOMMU maps the memory
/// ([`check_peers`](Self::check_peers)). It can't check whether the bridges between the devices forward their
/// requests: verify data once ([more](upcie_core::dma::DmaSpace::map_bar)). A peer's completion may overtake
/// its data, as they travel on different paths: read a byte of the buffer before you tell this controller to
/// use data from a peer.
///
/// When the controller is stopped, it takes the memory back. Buffers that still exist stay readable, and no
/// command can use them.
///
/// ```
/// # let controller = upcie_nvme::Controller::open("emu:size=1M,cmb=1M")?;
/// if let Some(memory) = controller.cmb()? {
///     let mut buffer = memory.alloc(4096)?;
///     buffer.write_at(0, b"never in host memory");
///     controller.namespace(1)?.write(0, &mut buffer)?;
/// }
/// # Ok::<(), upcie_nvme::Error>(())
/// ```
pub struct Cmb {
    device: Arc<str>,
    size: CmbSize,
    location: CmbLocation,
    mapped: Mapped,
}

impl Cmb {
    /// Allocates a buffer of `len` bytes, zeroed. Its PRP list, if it needs one, is in the host's memory.
    ///
    /// # Errors
    /// The memory buffer takes no data ([`Failure::Unsupported`](crate::Failure::Unsupported)), or is full: it does not grow.
    pub fn alloc(&self, len: usize) -> Result<DmaBuf> {
        if !self.reads() && !self.writes() {
            return Err(Error::unsupported(
                self.device.to_string(),
                "no data may be in its memory buffer (CMBSZ.RDS and WDS): use memory of the host",
            ));
        }
        Ok(self.mapped.heap.alloc(len)?)
    }

    /// Returns the heap behind [`alloc`](Self::alloc), for buffers that need not be zeroed.
    pub fn heap(&self) -> &Arc<Heap> {
        &self.mapped.heap
    }

    /// Returns the size in bytes.
    pub fn size(&self) -> usize {
        self.mapped.len
    }

    /// Returns the device address of the first byte.
    pub fn iova(&self) -> u64 {
        self.mapped.iova
    }

    /// Returns the caching of this process's accesses.
    pub fn caching(&self) -> Caching {
        self.mapped.bar.caching()
    }

    /// Returns the size and the supported uses: CMBSZ.
    pub fn properties(&self) -> CmbSize {
        self.size
    }

    /// Returns the location, and the rules for mixing it with host memory: CMBLOC.
    pub fn location(&self) -> CmbLocation {
        self.location
    }

    /// Returns `true` if data of commands like Read may be in it (CMBSZ.RDS). If not, this controller's
    /// commands of that kind are refused; a peer's are allowed, as it writes to this memory like to any
    /// other.
    pub fn reads(&self) -> bool {
        self.size.rds()
    }

    /// Returns `true` if data of commands like Write may be in it (CMBSZ.WDS), like [`reads`](Self::reads).
    pub fn writes(&self) -> bool {
        self.size.wds()
    }

    /// Enables the memory again after a reset, at its address.
    pub(super) fn restore(&self, link: &Link) -> Result<()> {
        if link.registers.capabilities().cmbs() { set_address(link, &self.mapped) } else { Ok(()) }
    }

    /// Checks that other devices of the address space can reach the memory.
    ///
    /// # Errors
    /// [`Failure::Unsupported`](crate::Failure::Unsupported) with the system's obstacle, and the transport that works.
    pub fn check_peers(&self) -> Result<()> {
        self.mapped.check_peers(&self.device, WHAT)
    }
}

/// Returns the location that the registers give; the error says what is wrong with them.
fn locate(location: CmbLocation, size: CmbSize) -> Result<Place, String> {
    let unit = size.unit().ok_or_else(|| format!("CMBSZ.SZU is {}, which is reserved", size.szu()))?;
    if !matches!(location.bir(), 0 | 2..=5) {
        return Err(format!("CMBLOC.BIR is {}, which is reserved", location.bir()));
    }
    let bytes =
        |units: u32| unit.checked_mul(units.into()).ok_or_else(|| format!("{units} units of {unit} bytes"));
    let (offset, len) = (bytes(location.ofst())?, bytes(size.sz())?);
    if len == 0 {
        return Err("CMBSZ.SZ is 0, although CAP.CMBS is set".into());
    }
    Ok(Place { bar: location.bir(), offset, len: Some(len) })
}

/// Enables the memory buffer; `None` if the controller has none.
pub(super) fn enable(controller: Owner<'_>) -> Result<Option<Arc<Cmb>>> {
    let control = controller.link.registers.capabilities().cmbs();
    if control {
        // Without CRE the next two registers read as 0.
        let cre = CmbMemorySpaceControl::new().with_cre(true);
        // SAFETY: with CMSE clear it answers to no address.
        unsafe { controller.link.registers.write_u64(offset::CMBMSC, cre.into_bits()) }?;
    }
    let location = CmbLocation::from_bits(controller.link.registers.peek(offset::CMBLOC)?);
    let size = CmbSize::from_bits(controller.link.registers.peek(offset::CMBSZ)?);
    if size.into_bits() == u32::MAX {
        return Err(Error::gone(controller.link.name.to_string(), "reading CMBSZ"));
    }
    if size.into_bits() == 0 && !control {
        return Ok(None);
    }
    if !control && !controller.private.space().is_physical() {
        return Err(Error::unsupported(
            controller.link.name.to_string(),
            "its memory buffer is older than NVMe 1.4, and answers to its bus address only: use it without an IOMMU \
             (`uio:`, `sysfs:`)",
        ));
    }
    let enabled = map(controller, location, size, control);
    if control && enabled.is_err() {
        // SAFETY: with CMSE clear it answers to no address.
        if let Err(error) = unsafe { controller.link.registers.write_u64(offset::CMBMSC, 0) } {
            let device = controller.link.name.clone();
            emit(move || tracing::warn!(%device, %error, "turning the memory buffer off"));
        }
    }
    enabled.map(Some)
}

/// Gives the controller the memory's device address.
fn set_address(link: &Link, mapped: &Mapped) -> Result<()> {
    let memory = CmbMemorySpaceControl::new().with_cre(true).with_cba(mapped.iova >> 12);
    // Write the address before CMSE: the controller must not decode half of a new one.
    // SAFETY: CMSE is clear, or the address is the one that the controller has.
    unsafe { link.registers.write_u64(offset::CMBMSC, memory.into_bits()) }?;
    // SAFETY: the addresses were allocated for this memory in the device's space, and are nobody else's.
    unsafe { link.registers.write_u32(offset::CMBMSC, memory.with_cmse(true).into_bits() as u32) }?;
    // CMBSTS.CBAI
    if link.registers.peek(offset::CMBSTS)? & 1 != 0 {
        let reason = format!("it does not take the address {:#x} (CMBSTS.CBAI)", mapped.iova);
        return Err(broken(&link.name, WHAT, reason));
    }
    Ok(())
}

fn map(controller: Owner<'_>, location: CmbLocation, size: CmbSize, control: bool) -> Result<Arc<Cmb>> {
    let place = locate(location, size).map_err(|reason| broken(&controller.link.name, WHAT, reason))?;
    let caching = controller.link.options.cmb_caching;
    let mapped = map_memory(controller, WHAT, place, caching, size.rds() && size.wds())?;
    if control {
        set_address(controller.link, &mapped)?;
    }
    let addresses = mapped.iova..mapped.iova + mapped.len as u64;
    let (reads, writes, mixed) = (size.rds(), size.wds(), location.cdmmms());
    let _ = controller.link.live.device_memory.buffer.set(Window { addresses, reads, writes, mixed });
    Ok(Arc::new(Cmb { device: controller.link.name.clone(), size, location, mapped }))
}

impl fmt::Debug for Cmb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cmb")
            .field("device", &self.device)
            .field("size", &self.size())
            .field("caching", &self.caching())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cmb_lies_where_its_registers_say() {
        let location = CmbLocation::new().with_bir(2).with_ofst(3);
        let size = CmbSize::new().with_szu(1).with_sz(16);
        assert_eq!(locate(location, size), Ok(Place { bar: 2, offset: 3 << 16, len: Some(1 << 20) }));
    }

    #[test]
    fn impossible_cmb_registers_are_refused() {
        let (location, size) = (CmbLocation::new().with_bir(2), CmbSize::new().with_sz(1));
        for (location, size, word) in [
            (location, size.with_szu(7), "SZU"),
            (location.with_bir(1), size, "BIR"),
            (location.with_bir(7), size, "BIR"),
            (location, size.with_sz(0), "SZ is 0"),
        ] {
            assert!(locate(location, size).is_err_and(|reason| reason.contains(word)), "{word}");
        }
        let most = locate(location.with_ofst(0xf_ffff), size.with_szu(6).with_sz(0xf_ffff)).unwrap();
        assert_eq!((most.offset, most.len), (0xf_ffff << 36, Some(0xf_ffff << 36)));
    }
}

//! Descriptor extensions of zones: bytes of the host's own that the controller keeps with each zone.

use super::{
    Zones,
    blocking::{Order, run},
    retries::Tries,
};
use crate::{
    Error, Refusal, Result,
    spec::{ZoneAction, ZoneDescriptor, ZoneFilter},
};

// Here, since few controllers have extensions.
impl Zones {
    /// Returns the bytes of a zone's descriptor extension (ZDES); 0 if zones have none.
    pub fn extension_size(&self) -> usize {
        self.namespace.extent.zones.extension as usize
    }

    /// Sets the descriptor extension of the empty zone that begins with block `zone`, which is closed then. A reset of the zone
    /// takes it away.
    ///
    /// ```
    /// use upcie_nvme::{Controller, spec::ZoneState};
    ///
    /// let controller = Controller::open("emu:size=1M,zoned=true,zone-size=64K,zde=64")?;
    /// let zones = controller.namespace(1)?.zones()?;
    /// let mut name = vec![0; zones.extension_size()];
    /// name[..3].copy_from_slice(b"log");
    /// zones.set_extension(0, &name)?;
    /// let (zone, extension) = &zones.report_extended(0, 1)?[0];
    /// assert_eq!(zone.state(), ZoneState::CLOSED);
    /// assert!(zone.attributes.extension_valid() && *extension == name);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`open`](Self::open): [`Status::ZONE_INVALID_TRANSITION`](crate::spec::Status::ZONE_INVALID_TRANSITION) if the zone
    /// is not empty; [`Refusal::Length`](crate::Refusal::Length) for a number of bytes other than
    /// [`extension_size`](Self::extension_size), or if that is 0.
    pub fn set_extension(&self, zone: u64, extension: &[u8]) -> Result<()> {
        self.namespace.check_usable()?;
        let (controller, extent, len) = (&self.namespace.controller, &self.namespace.extent, extension.len());
        let what = || {
            let action = ZoneAction::SET_DESCRIPTOR_EXTENSION.name().unwrap_or("a zone command");
            format!("{action} of block {zone} of namespace {} to {len} bytes", self.nsid())
        };
        if len == 0 || len != self.extension_size() {
            return Err(Error::refused(controller.name(), what(), Refusal::Length));
        }
        let mut limit = controller.limit();
        let mut buffer = controller.pages_with(extension, &mut limit)?;
        run(controller, &mut buffer, &what, &mut limit, (Tries::NONE, Order::Any), |turn, held, _| {
            // SAFETY: the part is inside of `held`. It outlives the command: `run` gives it back or frees it only when nothing is
            // in flight, or once the queue has been deleted, and leaks it otherwise.
            unsafe { turn.set_zone_extension_held(extent, zone, held, 0..len, 0) }.map(|()| false)
        })
        .map(drop)
    }

    /// Reports zones like [`report`](Self::report), each with the bytes of its descriptor extension. They have a meaning if the
    /// zone's attributes say so ([`extension_valid`](crate::spec::ZoneAttributes::extension_valid)).
    ///
    /// # Errors
    /// Those of [`report`](Self::report); [`Failure::Unsupported`](crate::Failure::Unsupported) if zones have no extensions.
    pub fn report_extended(&self, first: u64, most: usize) -> Result<Vec<(ZoneDescriptor, Vec<u8>)>> {
        if self.extension_size() == 0 {
            let reason =
                format!("the zones of namespace {} have no descriptor extensions (ZDES)", self.nsid());
            return Err(Error::unsupported(self.namespace.controller.name(), reason));
        }
        self.list(ZoneFilter::ALL, first, most, self.extension_size())
    }
}

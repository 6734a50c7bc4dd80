//! The controller's access to a namespace (Base, "Asymmetric Namespace Access Reporting").

use super::Namespace;
use crate::{
    Controller, Error, LogQuery, Result,
    spec::{AccessLog, AccessState},
};

/// CMIC: the controller reports its access to namespaces.
const REPORTS: u8 = 1 << 3;

impl Namespace {
    /// Asks the controller for its access to the namespace (log page Asymmetric Namespace Access, 0Ch); `None` if it reports none
    /// (CMIC bit 3), and so has no other path to tell of. Commands to a namespace that is not accessible now, or not any more,
    /// complete with a status that [is about the path](crate::spec::Status::is_path_related).
    ///
    /// ```
    /// let controller = upcie_nvme::Controller::open("emu:size=1M")?;
    /// assert_eq!(controller.namespace(1)?.access_state()?, None, "there is no other path");
    /// # Ok::<(), upcie_nvme::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`Controller::log_bytes`]; [`Failure::Protocol`](crate::Failure::Protocol) if the page does not have the namespace.
    pub fn access_state(&self) -> Result<Option<AccessState>> {
        let controller = Controller::of(&self.controller);
        if controller.identify().cmic & REPORTS == 0 {
            return Ok(None);
        }
        let log: AccessLog = controller.log_limited(&LogQuery::default(), &mut self.controller.limit())?;
        let group = log.groups().find(|(_, namespaces)| namespaces.contains(&self.nsid()));
        match group {
            Some((group, _)) => Ok(Some(group.state())),
            None => {
                let reason = format!("no group of the page has namespace {}", self.nsid());
                Err(Error::protocol(controller.name(), "Get Log Page (Asymmetric Namespace Access)", reason))
            }
        }
    }
}

//! The placement of writes, which fio chooses for each: the identifiers that it chooses from, and streams.

use crate::{errors::Failure, job::Job};
use std::ffi::c_void;
use upcie_nvme::{
    Controller, Namespace,
    spec::{DirectiveSend, DirectiveType, EnableDirective},
};

/// Returns the placement identifiers of a file's namespace, in the order of its placement handles.
pub(crate) fn identifiers(job: &Job, target: *mut c_void) -> Result<Vec<u16>, Failure> {
    let file = job.target(target).ok_or_else(|| Failure::new(libc::EINVAL, "the file is not open"))?;
    let handles = file.namespace.placement()?.handles()?;
    Ok(handles.iter().map(|handle| handle.placement_identifier).collect())
}

/// Turns the Streams directive on for this host: bring-up has turned it off.
pub(crate) fn enable_streams(controller: &Controller, namespace: &Namespace) -> Result<(), Failure> {
    let enable = EnableDirective { nsid: namespace.nsid(), kind: DirectiveType::STREAMS, enable: true };
    controller.execute(&DirectiveSend::from(enable))?;
    Ok(())
}

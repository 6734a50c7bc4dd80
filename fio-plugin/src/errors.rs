//! Errors as errno values and as lines of text.

use upcie_nvme::{
    Error, Refusal,
    spec::Status,
    upcie_core::{self, Chain},
};

/// The text of an error and its errno, for `td->error`.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) text: String,
    pub(crate) errno: i32,
}

impl Failure {
    pub(crate) fn new(errno: i32, text: impl Into<String>) -> Self {
        Self { text: text.into(), errno }
    }

    /// Makes the failure of an impossible option.
    pub(crate) fn refused(text: impl Into<String>) -> Self {
        Self::new(libc::EINVAL, text)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::new(errno(&error), Chain(&error).to_string())
    }
}

impl From<upcie_core::Error> for Failure {
    fn from(error: upcie_core::Error) -> Self {
        Error::from(error).into()
    }
}

/// Returns the errno that fio shows with the text: for a status that of the kernel's block layer.
fn errno(error: &Error) -> i32 {
    error.status().map_or_else(|| error.errno(), of_status)
}

/// Errno values of statuses, as in the kernel's block layer, except for statuses that the kernel does not distinguish:
/// beyond the end, not ready, write protected, no access. All other statuses are `EIO`.
const STATUSES: &[(Status, i32)] = &[
    (Status::INVALID_OPCODE, libc::EOPNOTSUPP),
    (Status::INVALID_FIELD, libc::EOPNOTSUPP),
    (Status::INVALID_NAMESPACE_OR_FORMAT, libc::EOPNOTSUPP),
    (Status::WRITE_PROTECTED, libc::EROFS),
    (Status::LBA_OUT_OF_RANGE, libc::ERANGE),
    (Status::CAPACITY_EXCEEDED, libc::ENOSPC),
    (Status::NAMESPACE_NOT_READY, libc::EBUSY),
    (Status::FORMAT_IN_PROGRESS, libc::EBUSY),
    (Status::RESERVATION_CONFLICT, libc::EBADE),
    (Status::CONFLICTING_ATTRIBUTES, libc::EOPNOTSUPP),
    (Status::INVALID_PROTECTION_INFORMATION, libc::EILSEQ),
    (Status::READ_ONLY_RANGE, libc::EROFS),
    (Status::WRITE_FAULT, libc::ENODATA),
    (Status::UNRECOVERED_READ_ERROR, libc::ENODATA),
    (Status::GUARD_CHECK_ERROR, libc::EILSEQ),
    (Status::APPLICATION_TAG_CHECK_ERROR, libc::EILSEQ),
    (Status::REFERENCE_TAG_CHECK_ERROR, libc::EILSEQ),
    (Status::COMPARE_FAILURE, libc::ENODATA),
    (Status::ACCESS_DENIED, libc::EACCES),
    (Status::DEALLOCATED_BLOCK, libc::ENODATA),
    (Status::INTERNAL_PATH_ERROR, libc::ENOLINK),
    (Status::CONTROLLER_PATHING_ERROR, libc::ENOLINK),
    (Status::HOST_PATHING_ERROR, libc::ENOLINK),
    (Status::ABORTED_BY_HOST, libc::ENOLINK),
];

/// Returns the errno of a status.
pub(crate) fn of_status(status: Status) -> i32 {
    let known = STATUSES.iter().find(|(known, _)| status == *known);
    known.map_or(libc::EIO, |&(_, errno)| errno)
}

/// Returns the errno of a command that the driver refused.
pub(crate) fn of_refusal(refusal: Refusal) -> i32 {
    match refusal {
        Refusal::OutOfRange => libc::ERANGE,
        Refusal::Unsupported | Refusal::NoCommand => libc::EOPNOTSUPP,
        Refusal::StaleNamespace | Refusal::ForeignNamespace => libc::ESTALE,
        Refusal::Closed => libc::EIO,
        _ => libc::EINVAL,
    }
}

#[cfg(test)]
mod tests {
    use super::{Failure, STATUSES, of_status};
    use upcie_nvme::{Controller, spec::Status, upcie_core};

    #[test]
    fn a_status_has_one_errno_whatever_its_retry_bits() {
        for (index, (status, errno)) in STATUSES.iter().enumerate() {
            assert!(!STATUSES[..index].iter().any(|(other, _)| other == status), "{status} is there twice");
            assert_eq!(of_status(*status), *errno);
            assert_eq!(of_status(Status::from_bits(status.into_bits() | 1 << 14)), *errno, "do not retry");
        }
        assert_eq!(of_status(Status::INTERNAL_ERROR), libc::EIO);
    }

    #[test]
    fn an_error_is_one_line_with_its_causes_and_errno() {
        let source = std::io::Error::from_raw_os_error(libc::EACCES);
        let (device, operation) = ("0000:01:00.0".to_owned(), "opening its group".to_owned());
        let failure = Failure::from(upcie_core::Error::os(device, operation, source));
        assert_eq!(failure.errno, libc::EACCES);
        assert!(
            failure.text.starts_with("0000:01:00.0: opening its group: Permission denied"),
            "{}",
            failure.text
        );

        let namespace = Controller::open("emu:size=1M,ro=true").unwrap().namespace(1).unwrap();
        let failure = Failure::from(namespace.write_zeroes(0, 1).unwrap_err());
        assert_eq!(failure.errno, libc::EROFS);
        assert!(
            failure.text.starts_with("emu:size=1M,ro=true: Write Zeroes (08h) to 1 blocks"),
            "{}",
            failure.text
        );
        assert!(failure.text.contains(" failed: "), "{}", failure.text);
        assert_eq!(of_status(Status::CAPACITY_EXCEEDED), libc::ENOSPC);
    }
}

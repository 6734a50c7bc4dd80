//! Errors as negative errno values, and the text of the last one in each thread.

use std::{
    borrow::Cow,
    cell::RefCell,
    ffi::{CStr, CString, c_char, c_int},
    panic::{AssertUnwindSafe, catch_unwind},
};
use upcie_nvme::{
    Error, Refusal,
    upcie_core::{self, Chain},
};

/// A failed call: its errno, and its text.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) errno: c_int,
    pub(crate) text: Cow<'static, str>,
}

pub(crate) type Result<T, E = Failure> = std::result::Result<T, E>;

impl Failure {
    #[cold]
    pub(crate) fn new(errno: c_int, text: impl Into<Cow<'static, str>>) -> Self {
        Self { errno, text: text.into() }
    }

    #[cold]
    pub(crate) fn argument(text: impl Into<Cow<'static, str>>) -> Self {
        Self::new(libc::EINVAL, text)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::new(error.errno(), Chain(&error).to_string())
    }
}

impl From<upcie_core::Error> for Failure {
    fn from(error: upcie_core::Error) -> Self {
        Error::from(error).into()
    }
}

/// Returns the failure of a command that the queue refused.
#[cold]
pub(crate) fn of_refusal(reason: Refusal) -> Failure {
    match reason {
        Refusal::Full => Failure::new(
            libc::EBUSY,
            "the queue is full: as many commands are in flight as it takes; poll first",
        ),
        Refusal::Closed => Failure::new(
            libc::EIO,
            "the queue was closed (a reset, or a completion of a command that was not in flight): the next upcie_poll says \
             why",
        ),
        other => Failure::new(libc::EINVAL, other.to_string()),
    }
}

thread_local! {
    static LAST: RefCell<CString> = RefCell::new(CString::default());
}

/// Notes a failure as the thread's last one, and returns its negative errno.
#[cold]
pub(crate) fn note(failure: Failure) -> c_int {
    let text = CString::new(failure.text.replace('\0', "?")).unwrap_or_default();
    // In a thread that is ending there may be no text any more.
    let _ = LAST.try_with(|last| {
        if let Ok(mut last) = last.try_borrow_mut() {
            *last = text;
        }
    });
    -failure.errno
}

/// Returns the text of the thread's last failure.
pub(crate) fn last() -> *const c_char {
    const NONE: &CStr = c"";
    let text = LAST.try_with(|last| last.try_borrow().map_or(NONE.as_ptr(), |last| last.as_ptr()));
    text.unwrap_or(NONE.as_ptr())
}

/// Runs a call; a panic, which is a defect of this library, becomes an error and doesn't reach C.
pub(crate) fn guarded(work: impl FnOnce() -> Result<c_int>) -> c_int {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(value)) => value,
        Ok(Err(failure)) => note(failure),
        Err(_) => note(Failure::new(libc::EIO, "a defect of libupcie (its panic is on stderr)")),
    }
}

/// Runs a call that returns a pointer: NULL and errno on failure.
pub(crate) fn guarded_pointer<T>(work: impl FnOnce() -> Result<*mut T>) -> *mut T {
    let mut made = std::ptr::null_mut();
    let result = guarded(|| {
        made = work()?;
        Ok(0)
    });
    if result < 0 {
        // SAFETY: takes nothing, and returns the place of the thread's errno.
        let errno = unsafe { libc::__errno_location() };
        // SAFETY: the thread's own, and valid for a write.
        unsafe { errno.write(-result) };
    }
    made
}

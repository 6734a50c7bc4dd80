//! Standard output that is closed. Rust opens /dev/null in its place before `main`, where results would be lost without an error.

use nix::libc;
use std::{
    io,
    sync::atomic::{AtomicBool, Ordering},
};

/// Set if the program was started without standard output.
static WAS_CLOSED: AtomicBool = AtomicBool::new(false);

extern "C" fn look() {
    // SAFETY: F_GETFD takes no further argument and only reads; a closed descriptor is its error EBADF.
    let flags = unsafe { libc::fcntl(libc::STDOUT_FILENO, libc::F_GETFD) };
    WAS_CLOSED.store(flags == -1, Ordering::Relaxed);
}

// SAFETY: the C library calls each function of this section once before `main`. It may pass arguments, which a C function without
// parameters ignores, and `look` needs nothing that Rust sets up later.
#[used]
#[unsafe(link_section = ".init_array")]
static LOOK: extern "C" fn() = look;

/// Returns true if the program was started with standard output.
pub fn has_stdout() -> bool {
    !WAS_CLOSED.load(Ordering::Relaxed)
}

/// Checks that standard output was not closed when the program started.
///
/// # Errors
/// It was (EBADF).
pub fn check_stdout() -> io::Result<()> {
    if has_stdout() { Ok(()) } else { Err(io::Error::from_raw_os_error(libc::EBADF)) }
}

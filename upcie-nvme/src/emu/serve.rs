//! A controller in this process.

use super::{Emulator, Error, FaultPlan, Options, name};
use std::{
    any::Any,
    os::unix::net::UnixStream,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};
use upcie_core::{
    device::Device,
    process::Worker,
    vfio_user::{VfioUserDevice, server::Server},
};

/// Starts a controller in a thread of this process (`nvme-emu`) and connects to it. It ends when the last handle to
/// the device is dropped, which waits for the thread, at most 30 s.
///
/// # Errors
/// [`Error`], and the connection's.
pub fn spawn(options: &Options) -> crate::Result<Arc<dyn Device>> {
    start(options, Emulator::new(options)?)
}

/// Starts a controller like [`spawn`] that fails as `plan` says.
///
/// # Errors
/// Those of [`spawn`] and of [`Emulator::inject`].
pub fn spawn_with_faults(options: &Options, plan: &FaultPlan) -> crate::Result<Arc<dyn Device>> {
    let mut emulator = Emulator::new(options)?;
    emulator.inject(plan)?;
    start(options, emulator)
}

fn start(options: &Options, mut emulator: Emulator) -> crate::Result<Arc<dyn Device>> {
    if options.populate == Some(true) {
        emulator.fill_memory(&AtomicBool::new(false), &mut |_| {})?;
    }
    let (ours, theirs) = UnixStream::pair().map_err(Error::Start)?;
    let thread = Worker::start("nvme-emu", move || serve(emulator, theirs)).map_err(Error::Start)?;
    let client = VfioUserDevice::from_stream(ours, name(options), Some(Box::new(Joined(Some(thread)))))?;
    Ok(Arc::new(client))
}

pub(super) fn serve(mut emulator: Emulator, stream: UnixStream) {
    let never = AtomicBool::new(false);
    // The device is never requested back: it ends with its driver.
    emulator.without_request();
    // A panic of the emulator does not end the program: the connection closes with the stream, and the driver
    // finds its device gone. The client's mappings are mapped in this very process already.
    let server = Server::new().trust_memory(true);
    match catch_unwind(AssertUnwindSafe(|| server.serve_stream(stream, &mut emulator, &never))) {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(%error, "the embedded controller's session ended"),
        Err(panic) => tracing::error!(panic = text(&*panic), "the embedded controller panicked"),
    }
}

fn text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("?")
}

/// The time that the thread may take to end: it writes to its medium, which may be a file on a file system
/// that hangs.
const END: Duration = Duration::from_secs(30);

/// Waits for the thread when dropped, at most [`END`]. A thread that does not end has its own mapping of the
/// driver's memory, so it does no harm.
struct Joined(Option<Worker>);

impl Drop for Joined {
    fn drop(&mut self) {
        if self.0.take().is_some_and(|thread| !thread.join_within(END)) {
            tracing::warn!(
                "the embedded controller did not end in time (a file of its medium may hang), and is left running"
            );
        }
    }
}

//! A controller in this process.

use super::{Emulator, Error, FaultPlan, Options, name, virtualization::Opened};
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
/// With `vfs=` it is a primary controller; while it is open, the same `serial=` with `vf=K` is secondary controller K of it. They
/// last until none of them is open.
///
/// # Errors
/// [`Error`], and the connection's.
pub fn spawn(options: &Options) -> crate::Result<Arc<dyn Device>> {
    if options.functions.any() {
        let opened = Opened::take(options)?;
        // Such controllers take no plan of faults.
        return start(name(options), false, move |stream| opened.serve(|emulator| serve(emulator, stream)));
    }
    let mut emulator = Emulator::new(options)?;
    emulator.populate(options)?;
    start_alone(name(options), emulator)
}

/// Starts `count` controllers of one NVM subsystem, each like [`spawn`], which share its namespaces and their reservations
/// ([`Emulator::subsystem`]).
///
/// ```
/// use upcie_nvme::{Controller, emu, spec::{HostIdentifier, HostIdentifierData, ReservationType, Status}};
///
/// let devices = emu::spawn_subsystem(&"size=1M".parse()?, 2)?;
/// let mut hosts = Vec::new();
/// for (identifier, device) in (1..).zip(devices) {
///     let controller = Controller::builder().from_device(device)?;
///     controller.set_feature(&HostIdentifier { data: HostIdentifierData { identifier } })?;
///     hosts.push((controller.namespace(1)?, controller));
/// }
/// let reservations = hosts[0].0.reservations()?;
/// reservations.register(7)?;
/// reservations.acquire(7, ReservationType::EXCLUSIVE_ACCESS)?;
/// let mut buffer = hosts[1].1.alloc(512)?;
/// let error = hosts[1].0.read(0, &mut buffer).unwrap_err();
/// assert_eq!(error.status(), Some(Status::RESERVATION_CONFLICT));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// Those of [`spawn`] and of [`Emulator::subsystem`].
pub fn spawn_subsystem(options: &Options, count: u16) -> crate::Result<Vec<Arc<dyn Device>>> {
    let mut all = Emulator::subsystem(options, count)?;
    if let Some(first) = all.first_mut() {
        first.populate(options)?;
    }
    let numbered = (1..).zip(all);
    numbered.map(|(number, one)| start_alone(format!("{} controller {number}", name(options)), one)).collect()
}

/// Starts a controller like [`spawn`] that fails as `plan` says. One that [writes late](super::Fault::writes_late), also by `faults=`,
/// changes buffers that the program has back, so the buffers of its driver can only be copied
/// ([`DmaBuf::is_by_copy`](crate::DmaBuf::is_by_copy)), as with
/// [`untrusted_device`](crate::ControllerBuilder::untrusted_device).
///
/// # Errors
/// Those of [`spawn`] and of [`Emulator::inject`].
pub fn spawn_with_faults(options: &Options, plan: &FaultPlan) -> crate::Result<Arc<dyn Device>> {
    let mut emulator = Emulator::new(options)?;
    emulator.inject(plan)?;
    emulator.populate(options)?;
    start_alone(name(options), emulator)
}

fn start_alone(name: String, mut emulator: Emulator) -> crate::Result<Arc<dyn Device>> {
    start(name, emulator.writes_late(), move |stream| serve(&mut emulator, stream))
}

fn start(
    name: String,
    writes_late: bool,
    run: impl FnOnce(UnixStream) + Send + 'static,
) -> crate::Result<Arc<dyn Device>> {
    let (ours, theirs) = UnixStream::pair().map_err(Error::Start)?;
    let thread = Worker::start("nvme-emu", move || run(theirs)).map_err(Error::Start)?;
    let client = VfioUserDevice::from_stream(ours, name, Some(Box::new(Joined(Some(thread)))))?;
    if writes_late {
        client.dma().distrust();
    }
    Ok(Arc::new(client))
}

pub(super) fn serve(emulator: &mut Emulator, stream: UnixStream) {
    let never = AtomicBool::new(false);
    // The device is never requested back: it ends with its driver.
    emulator.without_request();
    // A panic of the emulator does not end the program: the connection closes with the stream, and the driver
    // finds its device gone. The client's mappings are mapped in this very process already.
    let server = Server::new().trust_memory(true);
    match catch_unwind(AssertUnwindSafe(|| server.serve_stream(stream, emulator, &never))) {
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

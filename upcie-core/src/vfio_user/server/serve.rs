//! The server's loop: a device in software and its client, in one thread; another turns other clients away.

use super::{
    backend::{Backend, Layout},
    busy::refuse_others,
    client::Client,
    client_memory::Table,
    irqs::Irqs,
    listener::Listener,
    requests::Requests,
    slice::Slice,
};
use crate::{
    Chain, Error, Result,
    irq::IrqKind,
    page::host_page_size,
    vfio_user::{
        socket::{Channel, Fault, HEADERS, poll_for},
        wire::MAX_DATA,
    },
};
use std::{
    os::unix::net::UnixStream,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

/// Busy rounds of the backend between two checks of the socket, which are system calls.
const BUSY_ROUNDS: u32 = 64;
/// Busy rounds between two looks at the clock, and the time after which the socket is checked sooner: a round may be long.
const CLOCK_ROUNDS: u32 = 8;
const BUSY_TIME: Duration = Duration::from_millis(10);
/// Idle rounds between two checks.
const IDLE_ROUNDS: u32 = 32;
/// Time that an idle server spins before it sleeps: longer than a driver's pause between two bursts.
const SPIN: Duration = Duration::from_micros(200);
/// The first and the longest sleep. A message wakes the server at once, but a mapped doorbell does not, so the longest
/// sleep is the largest delay of the first doorbell after a pause.
const SLEEPS: (Duration, Duration) = (Duration::from_micros(10), Duration::from_micros(100));
/// Time for a client to leave after the server has requested the device.
const GRACE: Duration = Duration::from_secs(1);
/// Messages handled in one check, before the backend's next turn.
const MESSAGES: usize = 16;

/// Serves a device in the calling thread.
///
/// # Examples
/// A device without any register:
/// ```
/// use std::{io, os::unix::net::UnixStream, sync::atomic::AtomicBool};
/// use upcie_core::{vfio_user::{VfioUserDevice, server::*}, device::Device};
/// struct Nothing(Layout);
/// impl Backend for Nothing {
///     fn layout(&self) -> &Layout { &self.0 }
///     fn read(&mut self, _: &mut Client, _: u32, _: u64, _: &mut [u8]) -> io::Result<()> { Ok(()) }
///     fn write(&mut self, _: &mut Client, _: u32, _: u64, _: &[u8]) -> io::Result<()> { Ok(()) }
///     fn poll(&mut self, _: &mut Client) -> usize { 0 }
///     fn reset(&mut self) {}
/// }
/// let (ours, theirs) = UnixStream::pair()?;
/// let server = std::thread::spawn(move || {
///     Server::new().serve_stream(theirs, &mut Nothing(Layout::default()), &AtomicBool::new(false))
/// });
/// println!("connected to {}", VfioUserDevice::from_stream(ours, "nothing", None)?.name());
/// server.join().unwrap()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct Server {
    deadline: Duration,
    trust_memory: bool,
}

/// Logs the ends of sessions, and counts repeated ones: a client can connect and fail in a loop.
#[derive(Debug, Default)]
struct Repeated {
    error: String,
    /// Number of repetitions.
    more: u64,
}

impl Repeated {
    fn warn(&mut self, error: &str) {
        if self.error == error {
            self.more += 1;
            return;
        }
        self.report();
        tracing::warn!(error, "a client's session ended; further ends like this are only counted");
        self.error = error.into();
    }

    fn report(&mut self) {
        if self.more > 0 {
            tracing::warn!(error = self.error, count = self.more, "further sessions ended like this");
            self.more = 0;
        }
    }
}

impl Drop for Repeated {
    fn drop(&mut self) {
        self.report();
    }
}

impl Default for Server {
    fn default() -> Self {
        Self { deadline: Duration::from_secs(5), trust_memory: false }
    }
}

impl Server {
    /// Makes a server with a deadline of 5 seconds.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the deadline for a client to negotiate the version, to send the rest of a message, to receive an answer, or
    /// to answer all requests of one turn of the backend.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Sets whether memory that clients could shrink or take back is accepted, which could end this process with SIGBUS: named
    /// files on tmpfs and hugetlbfs, memfds without seals, and memfds of huge pages, into which clients can punch holes.
    /// Without this they are accepted only if [`survive_shrinking`](crate::memory::survive_shrinking) was called. (This
    /// crate's client takes small pages where the server refuses huge ones, unless its program has chosen huge ones.)
    pub fn trust_memory(mut self, trust: bool) -> Self {
        self.trust_memory = trust;
        self
    }

    /// Serves one client until it leaves, or `stop` becomes true; the backend is reset then. It is prepared for the client before
    /// ([`Backend::begin_session`]).
    ///
    /// When `stop` becomes true, a client that has set an eventfd for the device's request interrupt
    /// ([`IrqKind::Request`], VFIO_PCI_REQ_IRQ_INDEX) receives that interrupt, and has a second to leave.
    ///
    /// # Errors
    /// The client broke the protocol or missed a deadline; the backend's layout is invalid, or the backend can't be served now.
    pub fn serve_stream<B: Backend + ?Sized>(
        &self,
        stream: UnixStream,
        backend: &mut B,
        stop: &AtomicBool,
    ) -> Result<()> {
        self.session(stream, backend, stop)
    }

    /// Serves one client after another until `stop` becomes true. While one is connected, another thread answers further
    /// clients that the device is busy, even while the backend hangs. A client's error ends its session, with a warning
    /// in the log.
    ///
    /// # Errors
    /// The listener's errors; the backend's layout is invalid.
    pub fn serve<B: Backend + ?Sized>(
        &self,
        listener: &Listener,
        backend: &mut B,
        stop: &AtomicBool,
    ) -> Result<()> {
        check(backend.layout())?;
        let mut last = Repeated::default();
        while let Some(stream) = listener.next(stop)? {
            if let Err(error) = self.session_at(listener, stream, backend, stop) {
                last.warn(&Chain(&error).to_string());
            }
        }
        Ok(())
    }

    /// Serves the next client and no other; `stop` ends waiting and serving.
    ///
    /// # Errors
    /// Those of [`serve_stream`](Self::serve_stream), and the listener's.
    pub fn serve_one<B: Backend + ?Sized>(
        &self,
        listener: &Listener,
        backend: &mut B,
        stop: &AtomicBool,
    ) -> Result<()> {
        check(backend.layout())?;
        let Some(stream) = listener.next(stop)? else { return Ok(()) };
        self.session_at(listener, stream, backend, stop)
    }

    /// Runs a session, and refuses further clients at `listener` meanwhile.
    fn session_at<B: Backend + ?Sized>(
        &self,
        listener: &Listener,
        stream: UnixStream,
        backend: &mut B,
        stop: &AtomicBool,
    ) -> Result<()> {
        let client = stream.try_clone();
        refuse_others(listener, client, self.deadline, || self.session(stream, backend, stop))
    }

    fn session<B: Backend + ?Sized>(
        &self,
        stream: UnixStream,
        backend: &mut B,
        stop: &AtomicBool,
    ) -> Result<()> {
        let prepared = backend.begin_session();
        prepared
            .map_err(|error| Error::os("vfio-user server", "preparing the device for a client", error))?;
        check(backend.layout())?;
        let channel = Channel::new(stream, MAX_DATA as usize + HEADERS);
        let layout = backend.layout().clone();
        let table = Table::new(self.trust_memory).mapped_only(layout.mapped_memory_only);
        let mut client = Client::new(channel, Irqs::new(&layout.irqs), self.deadline, table, stop);
        let mut requests = Requests::new(layout);
        let end = self.run(&mut client, &mut requests, backend, stop);
        backend.reset();
        client.channel.shutdown();
        let fail = |reason: String| Err(Error::protocol("vfio-user client", "serving it", reason));
        match end {
            Ok(()) | Err(Fault::Closed) => Ok(()),
            Err(Fault::Garbage(reason)) => fail(reason.into()),
            Err(Fault::Late) => fail(format!("it let the server wait longer than {:?}", self.deadline)),
            Err(Fault::Os(errno)) => Err(Error::os("vfio-user client", "serving it", errno)),
        }
    }

    fn run<B: Backend + ?Sized>(
        &self,
        client: &mut Client,
        requests: &mut Requests,
        backend: &mut B,
        stop: &AtomicBool,
    ) -> std::result::Result<(), Fault> {
        let _slack = TimerSlack::minimal();
        let _slice = Slice::short();
        let single_core = std::thread::available_parallelism().is_ok_and(|cores| cores.get() == 1);
        let start = Instant::now();
        let (mut busy, mut idle, mut sleep) = (0_u32, 0_u32, SLEEPS.0);
        let (mut idle_since, mut asked, mut checked) = (None, None, start);
        loop {
            client.begin_turn();
            if backend.poll(client) > 0 {
                (idle, idle_since, sleep) = (0, None, SLEEPS.0);
                busy += 1;
                let is_long = busy % CLOCK_ROUNDS == 0 && checked.elapsed() >= BUSY_TIME;
                if busy < BUSY_ROUNDS && !is_long && !client.is_slow() {
                    continue;
                }
                busy = 0;
            } else if sleep == SLEEPS.0 {
                busy = 0;
                idle += 1;
                if idle < IDLE_ROUNDS {
                    if single_core {
                        std::thread::yield_now()
                    } else {
                        std::hint::spin_loop()
                    }
                    continue;
                }
                idle = 0;
            }

            checked = Instant::now();
            if stop.load(Ordering::Relaxed) && !is_leaving(client, &mut asked) {
                return Ok(());
            }
            if let Some(fault) = client.fault {
                return Err(fault);
            }
            if client.table.has_shrunk() {
                return Err(Fault::Garbage("it shrank its memory while that was in use"));
            }
            let mut handled = 0;
            // A client that does not receive its answers gets no further requests handled.
            while handled < MESSAGES && client.channel.flush()? {
                let Some(message) = client.channel.try_recv()? else { break };
                client.begin_turn();
                requests.handle(message, client, backend)?;
                if let Some(fault) = client.fault {
                    return Err(fault);
                }
                handled += 1;
            }
            if handled > 0 {
                (idle_since, sleep) = (None, SLEEPS.0);
                continue;
            }
            // The driver may be waiting for this core.
            std::thread::yield_now();
            let owed = if requests.negotiated() { client.channel.stalled_since() } else { Some(start) };
            if owed.is_some_and(|since| since.elapsed() > self.deadline) {
                return Err(Fault::Late);
            }
            if busy == 0 && idle_since.get_or_insert_with(Instant::now).elapsed() > SPIN {
                poll_for(&mut [client.channel.poll_fd()], sleep).map_err(Fault::Os)?;
                sleep = (sleep * 2).min(SLEEPS.1);
            }
        }
    }
}

/// Returns whether a client is about to leave. The first call requests the device, if the client has set an eventfd for
/// that.
fn is_leaving(client: &mut Client, asked: &mut Option<Instant>) -> bool {
    match *asked {
        Some(since) => since.elapsed() < GRACE,
        None if client.irqs.is_wired(IrqKind::Request, 0) => {
            client.trigger(IrqKind::Request, 0);
            *asked = Some(Instant::now());
            true
        }
        None => false,
    }
}

/// The timer slack of the calling thread: the default of 50 µs would add half of its length to the longest sleep.
struct TimerSlack {
    before: libc::c_ulong,
}

impl TimerSlack {
    /// Sets the smallest slack until dropped.
    fn minimal() -> Option<Self> {
        // SAFETY: a query of the calling thread's own attribute.
        let before = unsafe { libc::prctl(libc::PR_GET_TIMERSLACK) };
        let before = libc::c_ulong::try_from(before).ok().filter(|&before| before > 0)?;
        set_slack(1);
        Some(Self { before })
    }
}

impl Drop for TimerSlack {
    fn drop(&mut self) {
        set_slack(self.before);
    }
}

fn set_slack(nanoseconds: libc::c_ulong) {
    // SAFETY: this attribute only changes how late timers of the calling thread may be.
    unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, nanoseconds) };
}

/// Checks a layout: mappable parts are within their region and its memory, in whole pages.
fn check(layout: &Layout) -> Result<()> {
    let page = host_page_size() as u64;
    for (index, region) in layout.regions.iter().enumerate() {
        let Some(mappable) = &region.mappable else { continue };
        let bound = region.size.min(mappable.memory.len() as u64);
        let good = |&(offset, len): &(u64, u64)| {
            len > 0 && (offset | len) % page == 0 && offset.checked_add(len).is_some_and(|end| end <= bound)
        };
        if !mappable.areas.iter().all(good) {
            return Err(Error::unusable(
                "vfio-user server",
                format!(
                    "a mappable area of region {index} is not in whole pages of {page} bytes, or beyond the region \
                     or its memory ({bound:#x} bytes)"
                ),
            ));
        }
    }
    Ok(())
}

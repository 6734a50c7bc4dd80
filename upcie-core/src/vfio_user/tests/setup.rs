//! The client's writes to configuration space follow PCI, whatever the server.

use super::*;
use crate::{
    Failure,
    device::Device,
    irq::EventFd,
    pci::{cap, command as bits, offset},
    testing::{in_child, thread_number, wait_until_asleep},
    vfio_user::server::Irqs,
};
use std::sync::{Mutex, mpsc};

const MSI: u16 = 0x50;
const MSIX: u16 = 0x70;

/// A function whose killed user left everything turned on. It records the accesses to it.
struct Function {
    layout: Layout,
    space: [u8; 256],
    /// Command register, MSI control and MSI-X control after each write, or [`SET`] for DEVICE_SET_IRQS.
    log: Arc<Mutex<Vec<[u16; 3]>>>,
}

/// The record of DEVICE_SET_IRQS.
const SET: [u16; 3] = [u16::MAX; 3];

impl Function {
    fn new(log: Arc<Mutex<Vec<[u16; 3]>>>) -> Self {
        let mut space = [0; 256];
        let mut put =
            |at: u16, value: u16| space[usize::from(at)..][..2].copy_from_slice(&value.to_le_bytes());
        put(offset::VENDOR, 0x1234);
        put(offset::COMMAND, bits::BUS_MASTER);
        put(offset::STATUS, 1 << 4);
        put(offset::CAPABILITIES, MSI);
        put(MSI, cap::MSI | MSIX << 8);
        put(MSI + 2, 0x86 | 2 << 4 | 1);
        put(MSIX, cap::MSIX);
        put(MSIX + 2, 0xc000 | 7);
        let mut layout = Layout { irqs: [1, 8, 8, 0, 0], ..Layout::default() };
        layout.regions[CONFIG_REGION as usize] = RegionLayout { size: 256, mappable: None };
        Self { layout, space, log }
    }

    fn note(&self) {
        let word = |at: u16| u16::from_le_bytes(self.space[usize::from(at)..][..2].try_into().unwrap());
        self.log.lock().unwrap().push([offset::COMMAND, MSI + 2, MSIX + 2].map(word));
    }
}

impl Backend for Function {
    fn layout(&self) -> &Layout {
        &self.layout
    }

    fn read(&mut self, _: &mut Client, _: u32, offset: u64, data: &mut [u8]) -> std::io::Result<()> {
        data.copy_from_slice(&self.space[offset as usize..][..data.len()]);
        Ok(())
    }

    fn write(&mut self, _: &mut Client, _: u32, offset: u64, data: &[u8]) -> std::io::Result<()> {
        self.space[offset as usize..][..data.len()].copy_from_slice(data);
        self.note();
        Ok(())
    }

    fn poll(&mut self, _: &mut Client) -> usize {
        0
    }

    fn update_interrupts(&mut self, _: &mut Client) {
        self.log.lock().unwrap().push(SET);
    }

    fn reset(&mut self) {
        *self = Self::new(self.log.clone());
    }
}

/// A function whose server stops at the second read of the command register after a reset, until the test lets it go on.
struct Stopping {
    inner: Function,
    /// Reads since the reset.
    reads: Option<u32>,
    stops: mpsc::Sender<()>,
    go: mpsc::Receiver<()>,
}

impl Backend for Stopping {
    fn layout(&self) -> &Layout {
        self.inner.layout()
    }

    fn read(
        &mut self,
        client: &mut Client,
        region: u32,
        offset: u64,
        data: &mut [u8],
    ) -> std::io::Result<()> {
        if offset == u64::from(offset::COMMAND) {
            self.reads = self.reads.map(|reads| reads + 1);
        }
        if self.reads == Some(2) {
            self.reads = None;
            // The test has failed if nobody hears it, or lets it go on.
            let _ = self.stops.send(());
            let _ = self.go.recv();
        }
        self.inner.read(client, region, offset, data)
    }

    fn write(&mut self, client: &mut Client, region: u32, offset: u64, data: &[u8]) -> std::io::Result<()> {
        self.inner.write(client, region, offset, data)
    }

    fn poll(&mut self, client: &mut Client) -> usize {
        self.inner.poll(client)
    }

    fn update_interrupts(&mut self, client: &mut Client) {
        self.inner.update_interrupts(client);
    }

    fn reset(&mut self) {
        self.reads = Some(0);
        self.inner.reset();
    }
}

fn function() -> (VfioUserDevice, Arc<Mutex<Vec<[u16; 3]>>>) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let log = Arc::<Mutex<Vec<_>>>::default();
    let mut function = Function::new(log.clone());
    let server = std::thread::spawn(move || {
        Server::new().serve_stream(theirs, &mut function, &AtomicBool::new(false)).unwrap();
    });
    (VfioUserDevice::from_stream(ours, "function", Some(Box::new(Joined(Some(server))))).unwrap(), log)
}

/// Returns the records since the last call.
fn done(log: &Mutex<Vec<[u16; 3]>>) -> Vec<[u16; 3]> {
    std::mem::take(&mut log.lock().unwrap())
}

const OFF: u16 = bits::BUS_MASTER;
const ON: u16 = bits::BUS_MASTER | bits::MEMORY | bits::INTX_DISABLE;
const NO_MSI: u16 = 0x86;
const NO_MSIX: u16 = 7;

#[test]
fn open_turns_old_interrupts_off_and_the_function_on() {
    let (client, log) = function();
    // Messages first: with bus mastering on, the former user's interrupts would be raised.
    let wanted = [[OFF, NO_MSI | 0x21, NO_MSIX], [OFF, NO_MSI, NO_MSIX], [ON, NO_MSI, NO_MSIX]];
    assert_eq!(done(&log), wanted);
    reset(&client).unwrap();
    assert_eq!(done(&log), wanted, "a reset clears everything");
    drop(client);
    assert_eq!(done(&log), [[ON & !bits::BUS_MASTER, NO_MSI, NO_MSIX]]);
}

#[test]
fn messages_are_enabled_while_they_have_eventfds() {
    let (client, log) = function();
    let irqs: Vec<_> = (0..8).map(|_| EventFd::new().unwrap()).collect();
    let fds: Vec<_> = irqs.iter().map(AsFd::as_fd).collect();
    done(&log);
    client.set_irqs(IrqKind::Msix, &fds).unwrap();
    let on = [ON, NO_MSI, NO_MSIX | 0x8000];
    assert_eq!(done(&log), [SET, on], "eventfds set, then enabled");
    assert!(
        client.set_irqs(IrqKind::Msi, &fds).is_err() && client.set_irqs(IrqKind::Intx, &fds[..1]).is_err()
    );
    assert!(done(&log).is_empty());
    reset(&client).unwrap();
    assert_eq!(done(&log).last(), Some(&on), "kinds with eventfds are enabled again");
    client.set_irqs(IrqKind::Msix, &[]).unwrap();
    assert_eq!(done(&log), [[ON, NO_MSI, NO_MSIX], SET], "disabled, then eventfds removed");

    for (count, control) in [(1, 0x01), (2, 0x11), (3, 0x21), (8, 0x31)] {
        client.set_irqs(IrqKind::Msi, &fds[..count]).unwrap();
        assert_eq!(done(&log).last(), Some(&[ON, NO_MSI | control, NO_MSIX]), "{count} messages");
        client.set_irqs(IrqKind::Msi, &[]).unwrap();
        assert_eq!(done(&log), [[ON, NO_MSI, NO_MSIX], SET]);
    }

    client.set_irqs(IrqKind::Intx, &fds[..1]).unwrap();
    assert_eq!(done(&log), [SET, [ON & !bits::INTX_DISABLE, NO_MSI, NO_MSIX]]);
    drop(client);
    let off = [ON & !bits::BUS_MASTER, NO_MSI, NO_MSIX];
    assert_eq!(done(&log), [[ON, NO_MSI, NO_MSIX], SET, off], "closed: all off, bus master last");
}

/// A set that failed turned the interrupts off, and a reset turned them on again, without eventfds.
#[test]
fn interrupts_that_could_not_be_set_stay_off_after_a_reset() {
    let (client, log) = function();
    let (irq, (socket, _other)) = (EventFd::new().unwrap(), UnixStream::pair().unwrap());
    client.set_irqs(IrqKind::Msix, &[irq.as_fd()]).unwrap();
    assert!(client.set_irqs(IrqKind::Msix, &[socket.as_fd()]).is_err());
    reset(&client).unwrap();
    assert_eq!(done(&log).last(), Some(&[ON, NO_MSI, NO_MSIX]));
}

/// A reset turned interrupts on that another thread turned off at the same time: without eventfds. A forked child
/// waited for the thread of its parent that had the turn.
#[test]
fn a_reset_and_a_change_of_interrupts_take_turns() {
    const LONG: Duration = Duration::from_secs(60);
    let (ours, theirs) = UnixStream::pair().unwrap();
    let (log, (stops, stopped), (goes, go)) =
        (Arc::<Mutex<Vec<_>>>::default(), mpsc::channel(), mpsc::channel());
    let mut function = Stopping { inner: Function::new(log.clone()), reads: None, stops, go };
    let server = std::thread::spawn(move || {
        Server::new().serve_stream(theirs, &mut function, &AtomicBool::new(false)).unwrap();
    });
    let keepalive = Box::new(Joined(Some(server)));
    let client = VfioUserDevice::with_deadline(ours, "function", Some(keepalive), LONG).unwrap();
    let irq = EventFd::new().unwrap();
    client.set_irqs(IrqKind::Msix, &[irq.as_fd()]).unwrap();
    std::thread::scope(|scope| {
        let (client, (tells, told)) = (&client, mpsc::channel());
        // The server goes on also when this test fails.
        let goes = goes;
        let resets = scope.spawn(move || reset(client));
        stopped.recv_timeout(LONG).unwrap();
        let is_refused = || {
            let done = reset(client);
            matches!(done, Err(error) if matches!(error.failure(), Failure::Forked { .. }))
        };
        assert_eq!(in_child(|| i32::from(!is_refused())), Some(0));
        let clears = scope.spawn(move || {
            tells.send(thread_number()).unwrap();
            client.set_irqs(IrqKind::Msix, &[])
        });
        // It waits for its turn at the connection, which is the next one.
        wait_until_asleep(told.recv_timeout(LONG).unwrap());
        goes.send(()).unwrap();
        resets.join().unwrap().unwrap();
        clears.join().unwrap().unwrap();
    });
    let last = done(&log).into_iter().rfind(|record| *record != SET);
    assert_eq!(last, Some([ON, NO_MSI, NO_MSIX]));
}

#[test]
fn a_pin_driven_without_an_eventfd_is_logged() {
    let mut irqs = Irqs::new(&[1, 0, 0, 0, 0]);
    irqs.set_pin(false);
    assert!(!irqs.was_unheard());
    irqs.set_pin(true);
    assert!(irqs.was_unheard());
    // A device without a pin can't drive one.
    let mut none = Irqs::new(&[0; 5]);
    none.set_pin(true);
    assert!(!none.was_unheard());
}

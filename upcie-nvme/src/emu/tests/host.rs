//! A host with rings made by hand: it sends any message that a test wants.

use crate::{
    emu::{self, Emulator, layout::DSTRD},
    spec::{AdminOpcode, Command, CompletionEntry, QueuePriority, Status, doorbell_offset},
};
use std::{
    io::Write,
    os::unix::net::UnixStream,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};
use upcie_core::{
    device::Device,
    dma::Region,
    memory::{Memory, PageSize},
    mmio::{Bar, Register},
    vfio_user::VfioUserDevice,
};

pub const PAGE: usize = 4096;

/// A pair of rings.
pub struct Queue {
    pub qid: u16,
    sq: Region,
    cq: Region,
    pub entries: [u32; 2],
    pub tail: u32,
    pub head: u32,
    phase: bool,
    doorbells: [Register<u32>; 2],
}

/// Returns a status with its Do Not Retry bit, which equality of statuses leaves out.
pub(super) fn exact(status: Status) -> (Status, bool) {
    (status, status.do_not_retry())
}

impl Queue {
    /// Returns the commands that create its completion queue and its submission queue.
    pub fn creation(&self, vector: Option<u16>) -> [Command; 2] {
        let [sq, cq] = self.entries;
        [
            Command::create_completion_queue(self.qid, cq, self.cq.iova(0), vector),
            Command::create_submission_queue(self.qid, sq, self.sq.iova(0), self.qid, QueuePriority::MEDIUM),
        ]
    }

    /// Puts a command in the ring, without ringing the doorbell.
    pub fn put(&mut self, command: &Command) {
        // SAFETY: an entry of the ring, which is mapped; no reference to it exists.
        let entry = unsafe { self.sq.as_ptr().add(self.tail as usize * 64) };
        // SAFETY: the entry is aligned and inside of the mapped ring, to which no reference exists.
        unsafe { entry.cast::<Command>().write_volatile(*command) };
        self.tail = (self.tail + 1) % self.entries[0];
    }

    pub fn ring(&self) {
        self.ring_value(self.tail);
    }

    /// Writes any value to the tail doorbell.
    pub fn ring_value(&self, value: u32) {
        upcie_core::barrier::dma_wmb();
        // SAFETY: this host drives the controller, whose commands name memory without references.
        unsafe { self.doorbells[0].write(value) };
    }

    /// Writes any value to the head doorbell.
    pub fn acknowledge_value(&self, value: u32) {
        // SAFETY: this host drives the controller, whose commands name memory without references.
        unsafe { self.doorbells[1].write(value) };
    }

    pub fn acknowledge(&self) {
        self.acknowledge_value(self.head);
    }

    /// Returns the next completion, if there is one. It is not acknowledged.
    pub fn next(&mut self) -> Option<CompletionEntry> {
        // SAFETY: an entry of the ring, which is mapped; no reference to it exists.
        let entry = unsafe { self.cq.as_ptr().add(self.head as usize * 16) };
        // SAFETY: the entry is aligned and inside of the mapped ring, to which no reference exists.
        let done = unsafe { entry.cast::<CompletionEntry>().read_volatile() };
        if done.phase() == self.phase {
            return None;
        }
        self.head += 1;
        if self.head == self.entries[1] {
            (self.head, self.phase) = (0, !self.phase);
        }
        upcie_core::barrier::dma_rmb();
        // SAFETY: the entry is aligned and inside of the mapped ring; its phase tag was there, so the rest is, too.
        Some(unsafe { entry.cast::<CompletionEntry>().read_volatile() })
    }

    /// Returns the index of the entry that [`next`](Self::next) returned last.
    pub fn before(&self) -> u32 {
        (self.head + self.entries[1] - 1) % self.entries[1]
    }

    /// Returns an entry of the completion queue as it is now.
    pub fn entry(&self, index: u32) -> CompletionEntry {
        assert!(index < self.entries[1]);
        // SAFETY: an entry of the ring, as just checked.
        let entry = unsafe { self.cq.as_ptr().add(index as usize * 16) };
        // SAFETY: the entry is aligned and inside of the mapped ring; no reference to it exists.
        unsafe { entry.cast::<CompletionEntry>().read_volatile() }
    }

    /// Waits for the next completion, and acknowledges it.
    pub fn wait(&mut self) -> CompletionEntry {
        let end = Instant::now() + Duration::from_secs(10);
        loop {
            if let Some(done) = self.next() {
                self.acknowledge();
                return done;
            }
            assert!(Instant::now() < end, "queue {}: no completion", self.qid);
            thread::yield_now();
        }
    }

    /// Asserts that no completion comes for a while.
    pub fn silent(&mut self) {
        thread::sleep(Duration::from_millis(5));
        assert_eq!(self.next(), None, "queue {}", self.qid);
    }

    /// Sends a command and waits for its end.
    pub fn run(&mut self, command: Command) -> CompletionEntry {
        self.put(&command);
        self.ring();
        let done = self.wait();
        assert_eq!((done.cid, done.sqid, u32::from(done.sqhd)), (command.cid, self.qid, self.tail));
        done
    }

    pub fn status(&mut self, command: Command) -> Status {
        self.run(command).status()
    }
}

/// A controller with its admin queue, and memory.
pub struct Host {
    pub device: Arc<dyn Device>,
    pub bar: Bar,
    pub admin: Queue,
    /// Memory for data, with a page in front of and behind it that nobody may touch.
    pub data: Region,
}

impl Host {
    /// Brings a controller up.
    pub fn new(options: &str) -> Self {
        let mut host = Self::disabled(options);
        host.enable();
        host
    }

    /// Brings a controller up that fails as `plan` says.
    pub fn with_faults(options: &str, plan: &emu::FaultPlan) -> Self {
        let device = emu::spawn_with_faults(&options.parse().unwrap(), plan).unwrap();
        let mut host = Self::over(device);
        host.enable();
        host
    }

    pub fn disabled(options: &str) -> Self {
        Self::over(emu::spawn(&options.parse().unwrap()).unwrap())
    }

    /// Brings a controller up like [`new`](Self::new), and returns the connection's stream: for messages that
    /// the client would not send.
    pub fn with_stream(options: &str) -> (Self, Stream) {
        let mut emulator = Emulator::new(&options.parse().unwrap()).unwrap();
        let (ours, theirs) = UnixStream::pair().unwrap();
        let stream = Stream(ours.try_clone().unwrap());
        thread::spawn(move || emu::serve::serve(&mut emulator, theirs));
        let mut host = Self::over(Arc::new(VfioUserDevice::from_stream(ours, "emu", None).unwrap()));
        host.enable();
        (host, stream)
    }

    /// Makes a host of a device whose controller is disabled.
    pub fn over(device: Arc<dyn Device>) -> Self {
        let bar = device.bar(0).unwrap();
        let admin = queue(&device, &bar, 0, 16, 8);
        let data = device.dma().map(Memory::new(8 << 20, PageSize::Small).unwrap()).unwrap();
        Self { device, bar, admin, data }
    }

    /// Writes a register of 32 bits.
    pub fn write_u32(&self, offset: u64, value: u32) -> upcie_core::Result<()> {
        // SAFETY: this host drives the controller, whose rings and data are memory without references.
        unsafe { self.bar.write_u32(offset, value) }
    }

    /// Writes a register of 64 bits.
    pub fn write_u64(&self, offset: u64, value: u64) -> upcie_core::Result<()> {
        // SAFETY: this host drives the controller, whose rings and data are memory without references.
        unsafe { self.bar.write_u64(offset, value) }
    }

    /// Writes configuration space.
    pub fn config_write(&self, offset: u16, data: &[u8]) -> upcie_core::Result<()> {
        // SAFETY: this host drives the controller.
        unsafe { self.device.config_write(offset, data) }
    }

    /// Writes 16 bits of configuration space.
    pub fn set_config_u16(&self, offset: u16, value: u16) -> upcie_core::Result<()> {
        self.config_write(offset, &value.to_le_bytes())
    }

    /// Resets the controller.
    pub fn reset(&self) -> upcie_core::Result<()> {
        // SAFETY: this host drives the controller.
        unsafe { self.device.reset() }
    }

    /// Writes the admin queue's registers and CC; does not wait.
    pub fn configure(&self, cc: u32) {
        self.write_u32(0x24, 15 | 7 << 16).unwrap();
        self.write_u64(0x28, self.admin.sq.iova(0)).unwrap();
        self.write_u64(0x30, self.admin.cq.iova(0)).unwrap();
        self.write_u32(0x14, cc).unwrap();
    }

    /// Enables the controller with new admin rings.
    pub fn enable(&mut self) {
        self.admin = queue(&self.device, &self.bar, 0, 16, 8);
        self.configure(1 | 6 << 16 | 4 << 20);
        assert_eq!(self.csts(), 1, "CSTS");
    }

    pub fn csts(&self) -> u32 {
        self.bar.read_u32(0x1c).unwrap()
    }

    /// Makes a pair of I/O queues.
    pub fn queue(&mut self, qid: u16, entries: [u32; 2], vector: Option<u16>) -> Queue {
        let queue = queue(&self.device, &self.bar, qid, entries[0], entries[1]);
        for command in queue.creation(vector) {
            assert_eq!(self.admin.status(command), Status::SUCCESS);
        }
        queue
    }

    /// Makes a submission queue that completes to the queue pair `cqid`.
    pub fn submission_queue(&mut self, qid: u16, entries: u32, cqid: u16, priority: QueuePriority) -> Queue {
        let queue = queue(&self.device, &self.bar, qid, entries, 2);
        let sq = Command::create_submission_queue(qid, entries, queue.sq.iova(0), cqid, priority);
        assert_eq!(self.admin.status(sq), Status::SUCCESS);
        queue
    }

    /// Returns the device address of the byte at `offset` of the data.
    pub fn iova(&self, offset: usize) -> u64 {
        self.data.iova(offset)
    }

    pub fn bytes(&self, offset: usize, len: usize) -> Vec<u8> {
        assert!(offset + len <= self.data.len());
        let mut bytes = vec![0; len];
        // SAFETY: inside the region, as just checked.
        let from = unsafe { self.data.as_ptr().add(offset) };
        // SAFETY: `len` bytes from there on are inside the region; the tests look when no command is in flight.
        unsafe { from.copy_to_nonoverlapping(bytes.as_mut_ptr(), len) };
        bytes
    }

    pub fn set(&self, offset: usize, bytes: &[u8]) {
        assert!(offset + bytes.len() <= self.data.len());
        // SAFETY: inside the region, as just checked.
        let to = unsafe { self.data.as_ptr().add(offset) };
        // SAFETY: as many bytes from there on are inside the region, to which no reference exists.
        unsafe { to.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
    }

    /// Points an admin command to the first page of the data.
    pub fn with_page(&self, mut command: Command) -> Command {
        command.set_data_pointer(self.iova(0), 0);
        command
    }

    /// Runs an admin command that must succeed, and returns its 4096 bytes.
    pub fn page(&mut self, command: Command) -> Vec<u8> {
        self.set(0, &[0xee; PAGE]);
        let command = self.with_page(command);
        assert_eq!(self.admin.status(command), Status::SUCCESS, "{command:?}");
        self.bytes(0, PAGE)
    }

    /// Asserts that the controller still works.
    pub fn alive(&mut self) {
        let done = self.admin.run(Command {
            cid: 0x7777,
            ..Command::get_features(
                crate::spec::FeatureId::NUMBER_OF_QUEUES,
                crate::spec::FeatureSelect::CURRENT,
            )
        });
        assert_eq!(done.status(), Status::SUCCESS);
    }
}

/// A connection that can send several messages without waiting for an answer, as a VMM posts them.
pub struct Stream(UnixStream);

impl Stream {
    /// Sends messages: command and payload of each.
    pub fn post(&mut self, messages: &[(u16, Vec<u8>)]) {
        const NO_REPLY: u32 = 1 << 4;
        let mut bytes = Vec::new();
        for (command, payload) in messages {
            bytes.extend([0, 0]);
            bytes.extend(command.to_ne_bytes());
            bytes.extend((16 + payload.len() as u32).to_ne_bytes());
            bytes.extend(NO_REPLY.to_ne_bytes());
            bytes.extend([0; 4]);
            bytes.extend(payload);
        }
        self.0.write_all(&bytes).unwrap();
    }

    /// Makes a REGION_WRITE of a 32-bit register of BAR 0.
    pub fn write(offset: u64, value: u32) -> (u16, Vec<u8>) {
        (10, [&offset.to_ne_bytes()[..], &[0; 4], &4_u32.to_ne_bytes(), &value.to_le_bytes()].concat())
    }

    /// Makes a DEVICE_SET_IRQS that unmasks INTx.
    pub fn unmask_pin() -> (u16, Vec<u8>) {
        const NONE_UNMASK: u32 = 1 << 0 | 1 << 4;
        (8, [20, NONE_UNMASK, 0, 0, 1].map(u32::to_ne_bytes).concat())
    }
}

/// Makes rings that the controller does not know of yet.
pub fn queue(device: &Arc<dyn Device>, bar: &Bar, qid: u16, sq: u32, cq: u32) -> Queue {
    // Aligned to the largest CC.MPS.
    let memory = |len: u32| {
        let len = (len as usize).max(64 << 10);
        device.dma().map(Memory::new(len, PageSize::Small).unwrap()).unwrap()
    };
    let doorbell = |completion| bar.register(doorbell_offset(qid, completion, DSTRD) as u64).unwrap();
    Queue {
        qid,
        sq: memory(sq * 64),
        cq: memory(cq * 16),
        entries: [sq, cq],
        tail: 0,
        head: 0,
        phase: false,
        doorbells: [doorbell(false), doorbell(true)],
    }
}

/// Makes an admin command from its opcode and two dwords.
pub fn admin(opcode: u8, nsid: u32, cdw10: u32, cdw11: u32) -> Command {
    Command { cdw10, cdw11, ..Command::admin(AdminOpcode(opcode), nsid) }
}

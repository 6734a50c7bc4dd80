//! The state that commands work on, beside the queues.

use super::{
    Options,
    events::Admin,
    features::Features,
    firmware::Firmware,
    host_data::HostData,
    identity,
    io::Io,
    layout,
    media::Media,
    own_memory::OwnMemory,
    queues::Queues,
    sanitize::Sanitizer,
    self_test::SelfTests,
    shared::Doorbell,
    staged::Staging,
    telemetry::Telemetry,
    virtualization::{Granted, Virtualization},
};
use crate::spec::{AsyncEventType, LogPageId, Status, doorbell_offset};
use std::sync::Arc;
use upcie_core::memory::Memory;

/// Stands for no queue and no command in the error log.
const NO_QUEUE: u16 = 0xffff;
const NO_COMMAND: u16 = 0xffff;
/// Doorbells that one check for stray writes covers.
const STRAYS: u32 = 64;
/// Asynchronous event information for an error: a write to the doorbell of a queue that does not exist.
const INVALID_DOORBELL: u8 = 0;
/// Asynchronous event information for an error: an invalid doorbell write value.
const INVALID_DOORBELL_VALUE: u8 = 1;

/// The state that commands work on, beside the queues. A field is the state of one part of the specification (features,
/// firmware, self-tests, …), and the commands of a part are in the file of that part.
#[derive(Debug)]
pub(super) struct Core<M> {
    pub options: Options,
    pub doorbells: Arc<Memory>,
    /// The controller memory buffer (`cmb=`) and the persistent memory region (`pmr=`).
    pub own: OwnMemory,
    pub io: Io<M>,
    pub features: Features,
    pub admin: Admin,
    pub host_data: HostData,
    pub firmware: Firmware,
    pub tests: SelfTests,
    pub sanitizer: Sanitizer,
    pub telemetry: Telemetry,
    pub takes_io_queues: bool,
    /// The number of interrupt vectors that a queue may name now.
    pub vectors: u16,
    /// The number of controllers in the NVM subsystem.
    pub controllers: u16,
    /// The identity of the NVM subsystem.
    pub subsystem: identity::Identity,
    /// The identity that those of the namespaces are made of.
    pub identity: identity::Identity,
    /// Present in an NVM subsystem with a primary controller (`vfs=`), whose controllers share it.
    pub virtualization: Option<Box<Virtualization>>,
    /// The resources that the controller has for its host.
    pub granted: Granted,
    /// The change of its state that `granted` was made after.
    pub changes: u64,
    /// Present if commands are served in stages.
    pub staging: Option<Box<Staging>>,
}

/// Returns the features at their defaults.
fn features(options: &Options, granted: Granted) -> Features {
    Features::new(options.most_namespaces(), options.interrupts(granted.vectors), granted.queues)
}

impl<M: Media> Core<M> {
    /// Makes the state after power-on.
    pub fn new(options: &Options, doorbells: Arc<Memory>, own: OwnMemory, io: Io<M>) -> Self {
        let granted = Granted::of(options);
        Self {
            io,
            features: features(options, granted),
            admin: Admin::default(),
            host_data: HostData::default(),
            firmware: Firmware::new(options.boot_partitions),
            tests: SelfTests::default(),
            sanitizer: Sanitizer::default(),
            telemetry: Telemetry::default(),
            takes_io_queues: false,
            vectors: 0,
            controllers: options.functions.count.saturating_add(1),
            subsystem: identity::of_serial(&options.serial),
            identity: identity::of_serial(&options.serial),
            virtualization: Virtualization::new(options),
            granted,
            changes: 0,
            staging: None,
            doorbells,
            own,
            options: options.clone(),
        }
    }

    /// Records that a doorbell was written with a value that its queue does not have.
    pub fn doorbell_fault(&mut self) {
        self.io.errors.push(NO_QUEUE, NO_COMMAND, 0, 0, Status::INVALID_FIELD.with_do_not_retry());
        self.admin.raise(AsyncEventType::ERROR, INVALID_DOORBELL_VALUE, LogPageId::ERROR_INFORMATION);
    }

    /// Checks the doorbells of the next few queue identifiers. A write to a doorbell whose queue does not
    /// exist is undone and reported ("Write to Invalid Doorbell Register"). Returns `true` if there was one.
    /// A write of 0 is not noticed.
    pub fn look_for_strays(&mut self, queues: &Queues) -> bool {
        let mut found = false;
        for _ in 0..STRAYS {
            let (qid, completion) = (self.admin.stray / 2, self.admin.stray % 2 != 0);
            let Ok(doorbell) = self.doorbell(qid, completion) else {
                self.admin.stray = 0;
                break;
            };
            self.admin.stray += 1;
            if doorbell.load() != 0 && !queues.exists(qid, completion) {
                doorbell.store(0);
                self.io.errors.push(NO_QUEUE, NO_COMMAND, 0, 0, Status::INVALID_QUEUE_ID.with_do_not_retry());
                self.admin.raise(AsyncEventType::ERROR, INVALID_DOORBELL, LogPageId::ERROR_INFORMATION);
                found = true;
            }
        }
        found
    }

    /// Returns the doorbell of a queue.
    pub fn doorbell(&self, qid: u16, completion: bool) -> Result<Doorbell, Status> {
        let offset = doorbell_offset(qid, completion, layout::DSTRD);
        Doorbell::new(&self.doorbells, offset).ok_or(Status::INTERNAL_ERROR)
    }

    /// Forgets the state that a controller reset clears.
    pub fn forget(&mut self) {
        self.admin = Admin::default();
        self.features = features(&self.options, self.granted);
        self.host_data.reset();
        self.firmware.reset();
        self.tests.reset();
        self.io.interrupt_erasures();
        self.io.reservations.reset(self.io.controller);
        self.io.note_reservations();
        (self.io.write_cache, self.io.copy_formats) = (true, 0);
        if let Some(staging) = &mut self.staging {
            staging.untold.clear();
            staging.delays = false;
        }
    }
}

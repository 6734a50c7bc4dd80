//! Metadata and protection information of the embedded controller: corruption on the way, every guard with storage tags, and
//! what a file keeps.

use upcie_nvme::{
    Controller, DmaBuf, Error, Io, Namespace, QueuePair, Refusal, Wait,
    emu::{Fault, FaultPlan, FaultRule, spawn_with_faults},
    protection::{Checks, Protect},
    spec::{CopyRange, ErrorLog, NvmOpcode, ProtectionField, Status},
};
use upcie_tests::{deadline, says};

const PROTECT: Protect =
    Protect::new().check(Checks::GUARD.union(Checks::REFERENCE_TAG).union(Checks::APPLICATION_TAG));

fn open(options: &str) -> (Controller, Namespace) {
    let controller = Controller::open(format!("emu:size=4M,{options}")).unwrap();
    let namespace = controller.namespace(1).unwrap();
    (controller, namespace)
}

/// Makes protected blocks of an extended format.
fn blocks(
    controller: &Controller,
    namespace: &Namespace,
    slba: u64,
    count: usize,
    protect: &Protect,
) -> DmaBuf {
    let format = namespace.format();
    let mut bytes = vec![0x37; count * format.transfer_size()];
    format.generate(slba, &mut bytes, protect);
    let mut buffer = controller.alloc(bytes.len()).unwrap();
    buffer.write_at(0, &bytes);
    buffer
}

/// Formats with metadata at the end of blocks and apart, and guards of each size.
const FORMATS: [&str; 7] = [
    "ms=8,pi=1,extended=true",
    "ms=8,pi=2",
    "ms=8,pi=1,sts=16,extended=true",
    "lba=4096,ms=16,pi=1,guard=32",
    "lba=4096,ms=64,pi=2,guard=32,sts=40,extended=true",
    "ms=16,pi=2,guard=64,extended=true",
    "lba=4096,ms=64,pi=1,guard=64,sts=16,pi-first=true",
];

/// The blocks of a transfer, and their place.
const SLBA: u64 = 100;
const COUNT: usize = 16;

/// Protected blocks in memory, their metadata at their end or apart.
struct Blocks<'n> {
    namespace: &'n Namespace,
    data: DmaBuf,
    metadata: DmaBuf,
}

impl<'n> Blocks<'n> {
    fn new(controller: &Controller, namespace: &'n Namespace) -> Self {
        let format = namespace.format();
        let mut data = vec![0x37; COUNT * format.transfer_size()];
        let mut metadata = vec![0; COUNT * format.metadata_size()];
        match format.is_separate() {
            true => format.generate_separate(SLBA, &data, &mut metadata, &READ),
            false => format.generate(SLBA, &mut data, &READ),
        }
        let filled = |bytes: &[u8]| {
            let mut buffer = controller.alloc(bytes.len()).unwrap();
            buffer.write_at(0, bytes);
            buffer
        };
        Self { namespace, data: filled(&data), metadata: filled(&metadata) }
    }

    fn run(&mut self, io: Io<'_>) -> Result<(), Error> {
        match self.namespace.format().is_separate() {
            true => self.namespace.run_with_metadata(io, &mut self.data, &mut self.metadata),
            false => self.namespace.run(io, &mut self.data),
        }
    }

    /// Checks them in software; returns the block that does not pass, and the field that is wrong.
    fn verify(&self) -> Result<(), (u64, ProtectionField)> {
        let (format, data) = (self.namespace.format(), self.data.to_vec());
        let verified = match format.is_separate() {
            true => format.verify_separate(SLBA, &data, &self.metadata.to_vec(), &READ),
            false => format.verify(SLBA, &data, &READ),
        };
        verified.map_err(|error| (error.block, error.kind))
    }

    /// Returns the block in whose data buffer a byte is not as it was.
    fn changed(&self, before: &[u8]) -> u64 {
        let at = self.data.to_vec().iter().zip(before).position(|(now, before)| now != before);
        SLBA + (at.expect("a flipped bit") / self.namespace.format().transfer_size()) as u64
    }

    /// Flips a bit of the byte `at` of the protection information of a block.
    fn flip(&mut self, block: usize, at: usize) {
        let format = self.namespace.format();
        let protection = format.protection().expect("protection information");
        let at = at + if protection.is_first() { 0 } else { format.metadata_size() - protection.size() };
        let (buffer, at) = match format.is_separate() {
            true => (&mut self.metadata, block * format.metadata_size() + at),
            false => (&mut self.data, block * format.transfer_size() + format.data_size() + at),
        };
        let mut byte = [0];
        buffer.read_at(at, &mut byte);
        buffer.write_at(at, &[byte[0] ^ 0x40]);
    }
}

/// Returns the block that the error log has for a command that failed, and the field of its status.
fn failure(controller: &Controller, done: Result<(), Error>) -> (u64, ProtectionField) {
    let error = done.unwrap_err();
    says(&error, &["Check Error"]);
    let log: ErrorLog = controller.log().unwrap();
    let lba = log.errors().next().expect("an entry of the error log").lba;
    (lba, error.status().and_then(Status::protection_field).expect("a field"))
}

/// A bit that flips on the way to the controller is found by the check of the write, or by that of a read if the write had none:
/// by its block and its field. One that flips on the way back is found by the host.
#[test]
fn corruption_on_the_way_is_found_at_its_block() {
    for options in FORMATS {
        for seed in 0..6 {
            let corrupting = |opcode: NvmOpcode| {
                let rule = FaultRule::new(Fault::Corrupt).opcode(opcode.0).count(1);
                let options = format!("size=4M,{options}").parse().unwrap();
                let device = spawn_with_faults(&options, &FaultPlan::new(seed).rule(rule)).unwrap();
                let controller = Controller::builder().from_device(device).unwrap();
                let namespace = controller.namespace(1).unwrap();
                (controller, namespace)
            };
            let (controller, namespace) = corrupting(NvmOpcode::READ);
            let mut blocks = Blocks::new(&controller, &namespace);
            let sent = blocks.data.to_vec();
            blocks.run(Io::write(&namespace, SLBA).protect(READ)).unwrap();
            blocks.run(Io::read(&namespace, SLBA).protect(READ)).unwrap();
            let (block, _) = blocks.verify().unwrap_err();
            assert_eq!(block, blocks.changed(&sent), "{options}, {seed}");

            let (controller, namespace) = corrupting(NvmOpcode::WRITE);
            let mut blocks = Blocks::new(&controller, &namespace);
            blocks.run(Io::write(&namespace, SLBA)).unwrap();
            blocks.run(Io::read(&namespace, SLBA)).unwrap();
            let wanted = blocks.verify().unwrap_err();
            assert_eq!(wanted.0, blocks.changed(&sent), "{options}, {seed}");
            let read = blocks.run(Io::read(&namespace, SLBA).protect(READ));
            assert_eq!(failure(&controller, read), wanted, "{options}, {seed}");

            // The same bit again.
            let (controller, namespace) = corrupting(NvmOpcode::WRITE);
            let written = Blocks::new(&controller, &namespace).run(Io::write(&namespace, SLBA).protect(READ));
            assert_eq!(failure(&controller, written), wanted, "{options}, {seed}");
        }
    }
}

/// Each field of protection information that is wrong is named by the status, with the block in the error log: by the check of a
/// write, and by those of a Read and a Verify of blocks that were written unchecked.
#[test]
fn the_error_log_names_the_block_that_failed() {
    for options in FORMATS {
        let (controller, namespace) = open(options);
        let protection = *namespace.format().protection().unwrap();
        let guard = protection.guard().size();
        let mut fields = vec![
            (0, ProtectionField::GUARD),
            (guard, ProtectionField::APPLICATION_TAG),
            (protection.size() - 1, ProtectionField::REFERENCE_TAG),
        ];
        if protection.storage_tag_bits() > 0 {
            fields.push((guard + 2, ProtectionField::STORAGE_TAG));
        }
        for (at, field) in fields {
            let (mut blocks, wanted) = (Blocks::new(&controller, &namespace), (SLBA + 11, field));
            blocks.flip(11, at);
            assert_eq!(blocks.verify(), Err(wanted), "{options}");
            let written = blocks.run(Io::write(&namespace, SLBA).protect(READ));
            assert_eq!(failure(&controller, written), wanted, "{options}");
            blocks.run(Io::write(&namespace, SLBA)).unwrap();
            let read = blocks.run(Io::read(&namespace, SLBA).protect(READ));
            assert_eq!(failure(&controller, read), wanted, "{options}");
            let verified = namespace.verify(SLBA, COUNT as u64, READ);
            assert_eq!(failure(&controller, verified), wanted, "{options}");
            namespace.verify(SLBA, 11, READ).unwrap();
            namespace.verify(SLBA + 12, 4, READ).unwrap();
        }
    }
}

/// Guards of 16, 32 and 64 bits with storage tags: the host and the controller agree on every field.
#[test]
fn storage_tags_and_wide_guards_are_checked() {
    for options in [
        "ms=8,pi=1,sts=16",
        "lba=4096,ms=16,pi=1,guard=32",
        "lba=4096,ms=64,pi=2,guard=32,sts=40",
        "lba=4096,ms=64,pi=1,guard=64,sts=16,pi-first=true",
        "ms=16,pi=2,guard=64",
    ] {
        let (controller, namespace) = open(&format!("{options},extended=true"));
        let format = *namespace.format();
        let protection = *format.protection().unwrap();
        let tags = Protect::new().application_tag(0x1234).storage_tag(0xab_cdef_0123);
        let protect = tags.check(Checks::all());
        let mut buffer = blocks(&controller, &namespace, 70, 6, &protect);
        namespace.run(Io::write(&namespace, 70).protect(protect), &mut buffer).unwrap();
        let read = Io::read(&namespace, 70);
        namespace.run(read.protect(protect), &mut buffer).unwrap();
        assert_eq!(format.verify(70, &buffer.to_vec(), &protect), Ok(()), "{options}");
        let checks = |wrong: Protect| {
            let mut buffer = controller.alloc(buffer.len()).unwrap();
            let error = namespace.run(read.protect(wrong), &mut buffer).unwrap_err();
            error.status().unwrap().protection_field()
        };
        if protection.storage_tag_bits() > 0 {
            assert_eq!(checks(protect.storage_tag(1)), Some(ProtectionField::STORAGE_TAG), "{options}");
        }
        assert_eq!(checks(protect.application_tag(1)), Some(ProtectionField::APPLICATION_TAG), "{options}");
        // Inserted by the controller, the same bits.
        let before = buffer.to_vec();
        let action = tags.action();
        let mut data =
            if format.is_stripped() { controller.alloc(6 * format.data_size()).unwrap() } else { buffer };
        data.fill(0x37);
        namespace.run(Io::write(&namespace, 70).protect(action), &mut data).unwrap();
        let mut back = controller.alloc(before.len()).unwrap();
        namespace.run(read, &mut back).unwrap();
        let place = |block: &[u8]| {
            let metadata = &block[format.data_size()..];
            let start = if protection.is_first() { 0 } else { metadata.len() - protection.size() };
            metadata[start + protection.guard().size()..start + protection.size()].to_vec()
        };
        for (made, inserted) in
            before.chunks(format.transfer_size()).zip(back.to_vec().chunks(format.transfer_size()))
        {
            assert_eq!(place(made), place(inserted), "{options}");
        }
        assert_eq!(format.verify(70, &back.to_vec(), &protect), Ok(()), "{options}");
    }
}

/// With type 1 the number of the block is the reference tag: another one is no valid command.
#[test]
fn a_reference_tag_that_type_1_can_not_have_is_refused_by_the_controller() {
    let (controller, namespace) = open("ms=8,pi=1,extended=true");
    let mut buffer = blocks(&controller, &namespace, 5, 1, &PROTECT);
    let wrong = PROTECT.reference_tag(6);
    let error = namespace.run(Io::write(&namespace, 5).protect(wrong), &mut buffer).unwrap_err();
    assert_eq!(error.status(), Some(Status::INVALID_PROTECTION_INFORMATION));
    namespace.run(Io::write(&namespace, 5).protect(PROTECT), &mut buffer).unwrap();
}

/// A file keeps the metadata behind the data.
#[test]
fn a_file_keeps_metadata() {
    let path = std::env::temp_dir().join(format!("upcie-metadata-{}.img", std::process::id()));
    let options = format!("file={},ms=8,pi=2,extended=true", path.display());
    let protect = PROTECT.reference_tag(900);
    {
        let (controller, namespace) = open(&options);
        let mut buffer = blocks(&controller, &namespace, 3, 4, &protect);
        namespace.run(Io::write(&namespace, 3).protect(protect), &mut buffer).unwrap();
        namespace.flush().unwrap();
    }
    let (controller, namespace) = open(&options);
    let mut buffer = controller.alloc(4 * 520).unwrap();
    let read = namespace.run(Io::read(&namespace, 3).protect(protect), &mut buffer);
    let verified = namespace.format().verify(3, &buffer.to_vec(), &protect);
    drop((controller, namespace));
    std::fs::remove_file(&path).unwrap();
    read.unwrap();
    assert_eq!(verified, Ok(()));
}

/// A namespace with protection information, some blocks on it, and a queue for copies.
struct Copies {
    controller: Controller,
    namespace: Namespace,
    queue: QueuePair<u32>,
}

/// The write: tags that the controller makes.
const MADE: Protect = Protect::new().action().application_tag(0x1234).storage_tag(5);
/// The checks of it, of all fields.
const READ: Protect = Protect::new().check(Checks::all()).application_tag(0x1234).storage_tag(5);

impl Copies {
    fn new(options: &str) -> Self {
        let (controller, namespace) = open(options);
        let queue = controller.queue_pair().create().unwrap();
        let this = Self { controller, namespace, queue };
        let bytes: Vec<u8> = (32..48).flat_map(|block| this.data(block)).collect();
        let mut data = this.controller.alloc(bytes.len()).unwrap();
        data.write_at(0, &bytes);
        this.namespace.run(Io::write(&this.namespace, 32).protect(MADE), &mut data).unwrap();
        this
    }

    fn data(&self, block: u8) -> Vec<u8> {
        vec![block; self.namespace.format().data_size()]
    }

    fn copy(&mut self, sources: &[(CopyRange, Protect)], to: u64, target: Protect) -> Status {
        let ranges = self.controller.alloc(4096).unwrap();
        let mut turn = self.queue.turn().unwrap();
        turn.copy_protected(&self.namespace, sources, ranges, to, target, 7).unwrap();
        drop(turn);
        assert!(self.queue.wait(Wait::Poll, deadline()).unwrap());
        self.queue.turn().unwrap().next().unwrap().status()
    }

    /// Reads blocks, of which the controller strips the protection information, with these checks.
    fn read(&self, slba: u64, count: usize, checks: Protect) -> Result<Vec<u8>, Option<ProtectionField>> {
        let mut data = self.controller.alloc(count * self.namespace.format().data_size()).unwrap();
        match self.namespace.run(Io::read(&self.namespace, slba).protect(checks.action()), &mut data) {
            Ok(()) => Ok(data.to_vec()),
            Err(error) => Err(error.status().unwrap().protection_field()),
        }
    }
}

/// A Copy checks what it reads and what it writes, with both formats of source ranges; nothing is written if a check fails.
#[test]
fn copies_check_what_they_read_and_what_they_write() {
    for options in [
        "ms=8,pi=1",
        "ms=8,pi=2,extended=true",
        "ms=8,pi=1,sts=16,pi-first=true",
        "lba=4096,ms=16,pi=1,guard=32",
        "ms=16,pi=2,guard=64",
    ] {
        let mut copies = Copies::new(options);
        let is_first_type = copies.namespace.identify().dps & 7 == 1;
        let sources = [(CopyRange::new(40, 4), READ), (CopyRange::new(32, 8), READ)];
        let expected: Vec<u8> = (40..44).chain(32..40).flat_map(|block| copies.data(block)).collect();
        // New protection information at the new place, with another application tag.
        let target = MADE.application_tag(0x77);
        assert_eq!(copies.copy(&sources, 128, target), Status::SUCCESS, "{options}");
        let new = READ.application_tag(0x77);
        assert_eq!(copies.read(128, 12, new).as_ref(), Ok(&expected), "{options}");
        // A check of the second range fails: nothing is written, not even of the first.
        let wrong = [sources[0], (CopyRange::new(32, 8), READ.application_tag(1))];
        assert_eq!(copies.copy(&wrong, 128, MADE), Status::APPLICATION_TAG_CHECK_ERROR, "{options}");
        assert_eq!(copies.read(128, 12, new).as_ref(), Ok(&expected), "{options}");
        // Blocks keep their protection information, which is that of their old place.
        let kept = READ.check(Checks::GUARD).reference_tag(32);
        let kept = if is_first_type { Protect::new().check(Checks::GUARD) } else { kept };
        let whole = [(CopyRange::new(32, 8), READ)];
        assert_eq!(copies.copy(&whole, 200, kept), Status::SUCCESS, "{options}");
        let moved: Vec<u8> = (32..40).flat_map(|block| copies.data(block)).collect();
        let unchecked = Protect::new().check(Checks::GUARD | Checks::APPLICATION_TAG).application_tag(0x1234);
        assert_eq!(copies.read(200, 8, unchecked), Ok(moved), "{options}");
        assert_eq!(copies.read(200, 8, READ), Err(Some(ProtectionField::REFERENCE_TAG)), "{options}");
        if !is_first_type {
            assert!(copies.read(200, 8, READ.reference_tag(32)).is_ok(), "{options}");
        }
        // So a check of what is written, as of the new place, fails, and names the field.
        assert_eq!(copies.copy(&whole, 300, READ), Status::REFERENCE_TAG_CHECK_ERROR, "{options}");
        assert!(copies.read(300, 8, READ).is_ok(), "blocks that were never written are exempt: {options}");
    }
}

/// Copies that don't fit are refused, and bring their memory back.
#[test]
fn protected_copies_are_refused_before_they_are_sent() {
    let mut copies = Copies::new("ms=16,pi=1,guard=64");
    let (plain, source) = (open("lba=512"), (CopyRange::new(32, 8), READ));
    let plain_queue = &mut plain.0.queue_pair().create::<u32>().unwrap();
    let bytes = |controller: &Controller, len| controller.alloc(len).unwrap();
    for (sources, len, to, reason) in [
        (&[][..], 4096, 128, Refusal::Length),
        (&[source; 2][..], 79, 128, Refusal::Length),
        (&[source; 257][..], 16384, 128, Refusal::Length),
        (&[source][..], 4096, copies.namespace.blocks(), Refusal::OutOfRange),
    ] {
        let ranges = bytes(&copies.controller, len);
        let mut turn = copies.queue.turn().unwrap();
        let refused = turn.copy_protected(&copies.namespace, sources, ranges, to, MADE, 3).unwrap_err();
        assert_eq!((refused.reason, refused.buffer.len(), refused.tag), (reason, len, 3));
    }
    let ranges = bytes(&plain.0, 4096);
    let mut turn = plain_queue.turn().unwrap();
    let refused = turn.copy_protected(&plain.1, &[source], ranges, 0, MADE, 3).unwrap_err();
    assert_eq!(refused.reason, Refusal::Unprotected);
    drop(turn);
    // Plain copies move protection information as it is, and are of format 0, which is not that of wide guards.
    let mut ranges = bytes(&copies.controller, 4096);
    ranges.write_at(0, &CopyRange::new(32, 8).to_bytes());
    copies.queue.turn().unwrap().copy(&copies.namespace, ranges, 1, 128, 0).unwrap();
    assert!(copies.queue.wait(Wait::Poll, deadline()).unwrap());
    let status = copies.queue.turn().unwrap().next().unwrap().status();
    assert_eq!(status, Status::INVALID_FIELD);
}

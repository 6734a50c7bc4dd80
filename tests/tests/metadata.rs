//! Metadata at the end of blocks and apart from them, and protection information: made and checked by the host and by the
//! controller. Each test formats a namespace, and gives it back its format.

use std::io::{Read, Seek, SeekFrom, Write};
use upcie_nvme::{
    DmaBuf, Error, Failure, Io, Refusal, WithMetadata,
    protection::{Checks, Protect},
    spec::{OptionalCommands, ProtectionField, Status},
};
use upcie_tests::{
    formatted::{PROTECTED, on_each_format, wanted},
    in_guest, io, on_each_device,
};

const SLBA: u64 = 40;

#[track_caller]
fn field(result: Result<impl std::fmt::Debug, Error>) -> Option<ProtectionField> {
    let error = result.expect_err("a check that fails");
    error.status().unwrap_or_else(|| panic!("{error}")).protection_field()
}

#[track_caller]
fn refusal(result: Result<(), Error>) -> Refusal {
    match result.expect_err("a refusal").failure() {
        Failure::Refused { reason, .. } => *reason,
        other => panic!("{other:?}"),
    }
}

/// Blocks of a command with interleaved metadata that QEMU can write: it hands blocks and metadata to its disk in pieces, and
/// the host's kernel takes 1,024 of them (IOV_MAX).
const ON_QEMU: usize = 400;

/// The host makes protection information, the controller checks it, and the host checks what comes back.
#[test]
fn protection_goes_from_host_to_media_and_back() {
    on_each_format(PROTECTED, |_, this| {
        let protect = this.protect();
        let mut blocks = this.blocks(5, 1);
        this.generate(&mut blocks, SLBA, &protect);
        this.write(&blocks, Io::write(&this.namespace, SLBA).protect(protect)).unwrap();
        let back = this.read(5, Io::read(&this.namespace, SLBA).protect(protect)).unwrap();
        assert!(back == blocks);
        assert_eq!(this.verify(&back, SLBA, &protect), Ok(()));
    });
}

/// Each wrong field is found by the controller when it is written, which changes nothing, and when it is read.
#[test]
fn wrong_fields_are_found_by_their_kind() {
    on_each_format(PROTECTED, |_, this| {
        let protect = this.protect();
        let mut good = this.blocks(4, 2);
        this.generate(&mut good, SLBA, &protect);
        this.write(&good, Io::write(&this.namespace, SLBA).protect(protect)).unwrap();
        let protection = *this.format().protection().unwrap();
        let mut kinds = vec![ProtectionField::GUARD, ProtectionField::APPLICATION_TAG];
        kinds.extend(this.checks().contains(Checks::REFERENCE_TAG).then_some(ProtectionField::REFERENCE_TAG));
        for kind in kinds {
            let mut bad = this.blocks(4, 3);
            this.generate(&mut bad, SLBA, &protect);
            // Block 2, the last byte of the field.
            let size = this.format().metadata_size();
            let start = 2 * size + if protection.is_first() { 0 } else { size - protection.size() };
            let guard = protection.guard().size();
            let at = match kind {
                ProtectionField::GUARD => start + guard - 1,
                ProtectionField::APPLICATION_TAG => start + guard + 1,
                _ => start + protection.size() - 1,
            };
            bad.metadata[at] ^= 1;
            assert_eq!(this.verify(&bad, SLBA, &protect), Err((SLBA + 2, kind)), "by the host");
            let write = Io::write(&this.namespace, SLBA);
            assert_eq!(field(this.write(&bad, write.protect(protect))), Some(kind), "when written");
            let now = this.read(4, Io::read(&this.namespace, SLBA).protect(protect)).unwrap();
            assert!(now == good, "{kind}: nothing was written");
            // Unchecked, and found by the read.
            this.write(&bad, write).unwrap();
            let read = Io::read(&this.namespace, SLBA).protect(protect);
            assert_eq!(field(this.read(4, read)), Some(kind), "when read");
            let raw = this.read(4, Io::read(&this.namespace, SLBA)).unwrap();
            assert_eq!(this.verify(&raw, SLBA, &protect), Err((SLBA + 2, kind)));
            this.write(&good, write.protect(protect)).unwrap();
        }
        // Bits of the application tag that are masked out, and a block that is exempt from checks.
        let other = protect.application_tag(0x5aff).application_mask(0xff00);
        this.read(4, Io::read(&this.namespace, SLBA).protect(other)).unwrap();
    });
}

/// The controller makes protection information that the host agrees with, and takes it out again.
#[test]
fn the_controller_inserts_and_strips() {
    on_each_format(PROTECTED, |_, this| {
        let format = this.format();
        let protect = this.protect().action();
        let mut blocks = this.blocks(3, 4);
        let write = Io::write(&this.namespace, SLBA).protect(protect);
        if format.is_stripped() {
            this.namespace.run(write, &mut this.buffer(&blocks.data)).unwrap();
        } else {
            this.write(&blocks, write).unwrap();
        }
        let raw = this.read(3, Io::read(&this.namespace, SLBA)).unwrap();
        assert!(raw.data == blocks.data);
        assert_eq!(this.verify(&raw, SLBA, &this.protect()), Ok(()), "{format}: made by the controller");
        this.generate(&mut blocks, SLBA, &this.protect());
        assert!(raw.metadata == blocks.metadata, "bit by bit as the host makes it");
        if format.is_stripped() {
            let mut data = this.controller.alloc(3 * format.data_size()).unwrap();
            this.namespace.run(Io::read(&this.namespace, SLBA).protect(protect), &mut data).unwrap();
            assert!(data.to_vec() == blocks.data, "data alone");
            let wrong = protect.application_tag(1);
            let read = this.namespace.run(Io::read(&this.namespace, SLBA).protect(wrong), &mut data);
            assert_eq!(field(read), Some(ProtectionField::APPLICATION_TAG), "checked before it is stripped");
        }
    });
}

/// Transfers that are longer than a command: each command has its part of the metadata, and its reference tag.
#[test]
fn long_transfers_have_the_metadata_of_each_block() {
    on_each_format(&[PROTECTED[0], PROTECTED[1], PROTECTED[2], PROTECTED[5]], |_, this| {
        let count = 2 * this.namespace.max_transfer() / this.namespace.block_size() + 3;
        let protect = this.protect();
        let mut blocks = this.blocks(count, 5);
        this.generate(&mut blocks, SLBA, &protect);
        this.write(&blocks, Io::write(&this.namespace, SLBA).protect(protect)).unwrap();
        let back = this.read(count, Io::read(&this.namespace, SLBA).protect(protect)).unwrap();
        assert!(back == blocks);
        let last = SLBA + count as u64 - 1;
        let one = this.read(1, Io::read(&this.namespace, last).protect(protect)).unwrap();
        assert_eq!(this.verify(&one, last, &protect), Ok(()));
    });
}

/// A queue gives both buffers back, and the blocking calls are not needed.
#[test]
fn a_queue_moves_data_and_metadata() {
    on_each_format(&[wanted(512, 8, false, 0, false), wanted(4096, 64, false, 0, false)], |_, this| {
        let blocks = this.blocks(6, 6);
        let mut queue = io::create::<u64>(this.controller.queue_pair().depth(8));
        let data =
            DmaBuf::gather(blocks.data.chunks(2 * this.format().data_size()).map(|part| this.buffer(part)));
        let buffers = WithMetadata { data, metadata: this.buffer(&blocks.metadata) };
        queue.turn().unwrap().submit_with_metadata(Io::write(&this.namespace, SLBA), buffers, 1).unwrap();
        let (_, buffer) = io::only(&mut queue);
        let buffers = WithMetadata::from(buffer);
        assert_eq!(buffers.data.segments().count(), 3, "as many segments as before");
        assert_eq!(buffers.data.total_len(), blocks.data.len());
        let back = WithMetadata {
            data: this.controller.alloc(blocks.data.len()).unwrap(),
            metadata: this.controller.alloc(blocks.metadata.len()).unwrap(),
        };
        let read = Io::read(&this.namespace, SLBA);
        queue.turn().unwrap().submit_with_metadata(read, back, 2).unwrap();
        let WithMetadata { data, metadata } = WithMetadata::from(io::only(&mut queue).1);
        assert!(data.to_vec() == blocks.data && metadata.to_vec() == blocks.metadata);
        // By the blocking calls, which split it in another way.
        assert!(this.read(6, read).unwrap() == blocks);
        // Held memory, at an offset.
        let (mut held, held_metadata) = (this.controller.alloc(16 << 10).unwrap(), metadata);
        held.fill(0);
        let size = this.format().data_size();
        let part = size..size + 2 * size;
        let (second, end) = (held_metadata.len() / 6, 3 * held_metadata.len() / 6);
        // SAFETY: neither buffer is touched before the completion below.
        unsafe {
            queue.turn().unwrap().submit_held_with_metadata(
                Io::read(&this.namespace, SLBA + 1),
                (&held, part.clone()),
                (&held_metadata, second..end),
                3,
            )
        }
        .unwrap();
        io::only(&mut queue);
        assert!(held.to_vec()[part.clone()] == blocks.data[part]);
        assert!(held_metadata.to_vec() == blocks.metadata);
    });
}

#[test]
fn wrong_lengths_and_places_are_refused() {
    on_each_format(&[wanted(512, 8, false, 1, false), wanted(512, 8, false, 0, false)], |_, this| {
        let protected = this.format().protection().is_some();
        let mut queue = io::create::<u64>(this.controller.queue_pair().depth(8));
        let mut submit = |data: usize, metadata: DmaBuf, slba: u64, protect: Option<Protect>| {
            let len = metadata.len();
            let buffers = WithMetadata { data: this.controller.alloc(data).unwrap(), metadata };
            let io = Io::read(&this.namespace, slba);
            let io = protect.map_or(io, |protect| io.protect(protect));
            let refused = queue.turn().unwrap().submit_with_metadata(io, buffers, 9).unwrap_err();
            let back = WithMetadata::from(refused.buffer);
            assert_eq!((back.data.len(), back.metadata.len(), refused.tag), (data, len, 9), "all is back");
            refused.reason
        };
        let alloc = |len| this.controller.alloc(len).unwrap();
        for (data, metadata) in [(1024, 8), (1024, 24), (512, 16), (1024, 4096)] {
            assert_eq!(submit(data, alloc(metadata), 0, None), Refusal::MetadataLength);
        }
        assert_eq!(submit(1000, alloc(16), 0, None), Refusal::Length);
        assert_eq!(submit(1024, alloc(16), this.namespace.blocks() - 1, None), Refusal::OutOfRange);
        let odd = alloc(64).slice(2..18);
        assert_eq!(submit(1024, odd, 0, None), Refusal::MetadataPlace);
        let foreign = upcie_tests::device::another();
        assert_eq!(submit(1024, foreign.alloc(16).unwrap(), 0, None), Refusal::ForeignBuffer);
        let most = this.namespace.max_transfer() + 512;
        assert_eq!(submit(most, alloc(most / 64), 0, None), Refusal::TooLong);
        let action = Protect::new().action();
        let reason = if protected { Refusal::NoMetadata } else { Refusal::Unprotected };
        assert_eq!(submit(512, alloc(8), 0, Some(action)), reason);
        drop(queue);
        // The blocking calls.
        let (mut data, mut metadata) = (alloc(1024), alloc(24));
        let read = Io::read(&this.namespace, 0);
        let wrong = this.namespace.run_with_metadata(read, &mut data, &mut metadata);
        assert_eq!(refusal(wrong), Refusal::MetadataLength);
        assert_eq!((data.len(), metadata.len()), (1024, 24));
        if protected {
            // Without a buffer for it the controller makes and strips protection information.
            this.namespace.write(3, &mut data).unwrap();
            this.namespace.read(3, &mut data).unwrap();
        } else {
            let plain = this.namespace.read(3, &mut data);
            assert_eq!(refusal(plain), Refusal::Metadata);
            let mut queue = io::create::<u64>(this.controller.queue_pair().depth(4));
            let refused = queue.turn().unwrap().read(&this.namespace, 0, data, 1).unwrap_err();
            assert_eq!(refused.reason, Refusal::Metadata);
        }
    });
    // A namespace without metadata has no use for a buffer or for protection.
    on_each_device(|device| {
        let controller = device.open();
        let namespace = controller.namespaces().unwrap().remove(0);
        let (mut data, mut metadata) = (controller.alloc(4096).unwrap(), controller.alloc(64).unwrap());
        let read = Io::read(&namespace, 0);
        let with = namespace.run_with_metadata(read, &mut data, &mut metadata);
        assert_eq!(refusal(with), Refusal::NoMetadata);
        let protected = read.protect(Protect::new().action());
        assert_eq!(refusal(namespace.run(protected, &mut data)), Refusal::Unprotected);
        let mut queue = io::create::<u64>(controller.queue_pair().depth(4));
        let refused = queue.turn().unwrap().submit(protected, data, 1).unwrap_err();
        assert_eq!(refused.reason, Refusal::Unprotected);
    });
}

/// Blocks of 520 and 4160 bytes through every call that moves them.
#[test]
fn extended_blocks_pass_through_every_call() {
    let formats =
        [wanted(512, 8, true, 0, false), wanted(4096, 64, true, 0, false), wanted(512, 8, true, 1, false)];
    on_each_format(&formats, |_, this| {
        let (namespace, block) = (&this.namespace, this.namespace.block_size());
        assert_eq!(block, this.format().data_size() + this.format().metadata_size());
        assert_eq!(namespace.max_transfer() % block, 0);
        let byte = |at: usize| ((at * 131) >> 4) as u8;
        let all: Vec<u8> = (0..16 * block).map(byte).collect();
        // Turn, whole and in scattered parts.
        let mut queue = io::create::<u64>(this.controller.queue_pair().depth(8));
        queue.turn().unwrap().write(namespace, SLBA, this.buffer(&all), 1).unwrap();
        io::only(&mut queue);
        let parts = [3 * block + 4, 1000, 13 * block - 1004].map(|len| this.controller.alloc(len).unwrap());
        let scattered = queue.turn().unwrap().read(namespace, SLBA, DmaBuf::gather(parts), 2);
        if let Err(refused) = scattered {
            // Without scatter gather lists nothing begins within a page.
            assert!(matches!(refused.reason, Refusal::Segment { .. }), "{refused}");
            let buffer = this.controller.alloc(16 * block).unwrap();
            queue.turn().unwrap().read(namespace, SLBA, buffer, 2).unwrap();
        }
        let back: Vec<u8> = io::only(&mut queue).1.segments().flat_map(|part| part.to_vec()).collect();
        assert!(back == all);
        for len in [block - 1, block + 1, 512, 4096 + 4] {
            let buffer = this.controller.alloc(len).unwrap();
            let refused = queue.turn().unwrap().read(namespace, SLBA, buffer, 3).unwrap_err();
            assert_eq!(refused.reason, Refusal::Length, "{len} bytes");
        }
        let refused = queue
            .turn()
            .unwrap()
            .write(namespace, namespace.blocks() - 1, this.controller.alloc(2 * block).unwrap(), 3)
            .unwrap_err();
        assert_eq!(refused.reason, Refusal::OutOfRange);
        // Held memory.
        let held = this.controller.alloc(4 * block).unwrap();
        // SAFETY: the buffer is not touched before the completion below.
        unsafe {
            queue.turn().unwrap().submit_held(Io::read(namespace, SLBA + 2), &held, block..3 * block, 4)
        }
        .unwrap();
        io::only(&mut queue);
        assert!(held.to_vec()[block..3 * block] == all[2 * block..4 * block]);
        let pages: Vec<DmaBuf> = (0..2).map(|_| this.controller.alloc(block).unwrap()).collect();
        let segments: Vec<_> = pages.iter().map(|page| (page, 0..block)).collect();
        // SAFETY: the buffers are not touched before the completion below.
        let sent = unsafe {
            queue.turn().unwrap().submit_vectored_held(Io::read(namespace, SLBA + 5), &segments, 5)
        };
        match sent {
            Ok(()) => {
                io::only(&mut queue);
                assert!(pages[1].to_vec() == all[6 * block..7 * block]);
            }
            Err(refused) => assert!(matches!(refused.reason, Refusal::Segment { .. }), "{refused}"),
        }
        if this.controller.identify().optional_commands().contains(OptionalCommands::COMPARE) {
            queue.turn().unwrap().compare(namespace, SLBA, this.buffer(&all[..3 * block]), 6).unwrap();
            assert_eq!(io::finish(&mut queue).remove(0).status(), Status::SUCCESS);
        }
        drop(queue);
        // Blocking, longer than a command.
        let most = if in_guest() { ON_QEMU } else { usize::MAX };
        let count = (namespace.max_transfer() / block + 5).min(most);
        let long: Vec<u8> = (0..count * block).map(|at| byte(at) ^ 0x55).collect();
        namespace.write(100, &mut this.buffer(&long)).unwrap();
        let mut buffer = this.controller.alloc(long.len()).unwrap();
        namespace.read(100, &mut buffer).unwrap();
        assert!(buffer.to_vec() == long);
        // Bytes, and a stream, of the blocks one after the other.
        let offset = SLBA * block as u64 + 100;
        let mut bytes = vec![0; 2 * block];
        namespace.read_at(offset, &mut bytes).unwrap();
        assert!(bytes == all[100..100 + 2 * block]);
        namespace.write_at(offset + 7, &[0xee; 700]).unwrap();
        namespace.read_at(offset, &mut bytes).unwrap();
        assert!(
            bytes[7..707] == [0xee; 700]
                && bytes[..7] == all[100..107]
                && bytes[707..] == all[807..100 + 2 * block]
        );
        assert_eq!(namespace.len_bytes(), namespace.blocks() * block as u64);
        // A stream reads ahead by more than QEMU can read at once.
        if !in_guest() {
            let mut stream = namespace.stream();
            stream.seek(SeekFrom::Start(offset)).unwrap();
            stream.write_all(&all[..900]).unwrap();
            stream.sync().unwrap();
            stream.seek(SeekFrom::Start(offset + 5)).unwrap();
            let mut word = [0; 64];
            stream.read_exact(&mut word).unwrap();
            assert!(word == all[5..69]);
        }
    });
}

/// Blocks that were never written, and deallocated ones, pass every check; zeroed ones have the tags of the command.
#[test]
fn unwritten_and_zeroed_blocks_have_defined_protection() {
    if in_guest() {
        // QEMU keeps zeros for blocks that were never written.
        return;
    }
    on_each_format(&[PROTECTED[0], PROTECTED[1], PROTECTED[3], PROTECTED[5]], |_, this| {
        let protect = this.protect();
        let read = Io::read(&this.namespace, SLBA).protect(protect);
        let fresh = this.read(3, read).unwrap();
        assert!(fresh.data.iter().all(|&byte| byte == 0));
        assert_eq!(this.verify(&fresh, SLBA, &protect), Ok(()), "exempt");
        let mut blocks = this.blocks(3, 8);
        this.generate(&mut blocks, SLBA, &protect);
        this.write(&blocks, Io::write(&this.namespace, SLBA)).unwrap();
        this.namespace.deallocate(&[upcie_nvme::spec::DatasetRange::new(SLBA, 3)]).unwrap();
        assert!(this.read(3, read).unwrap() == fresh);
        // Zeroed by the controller, with tags or without.
        let mut queue = io::create::<u64>(this.controller.queue_pair().depth(4));
        let zeroes = upcie_nvme::Zeroes::new(&this.namespace, SLBA, 3);
        queue.turn().unwrap().write_zeroes(zeroes.protect(protect.action()), 1).unwrap();
        io::only(&mut queue);
        let zeroed = this.read(3, read).unwrap();
        assert!(zeroed.data == fresh.data && zeroed.metadata != fresh.metadata);
        queue.turn().unwrap().verify_protected(&this.namespace, SLBA, 3, protect, 2).unwrap();
        assert_eq!(io::finish(&mut queue).remove(0).status(), Status::SUCCESS);
        queue.turn().unwrap().write_zeroes(zeroes, 3).unwrap();
        io::only(&mut queue);
        assert_eq!(field(this.read(3, read)), Some(ProtectionField::APPLICATION_TAG), "zeros");
        queue.turn().unwrap().verify_protected(&this.namespace, SLBA, 3, protect, 4).unwrap();
        let status = io::finish(&mut queue).remove(0).status();
        assert_eq!(status, Status::APPLICATION_TAG_CHECK_ERROR);
    });
}

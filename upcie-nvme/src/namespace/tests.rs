//! Bytes at any offset, compared with a vector that holds the same bytes.

use super::open;
use crate::{Controller, Failure, Namespace, Refusal, Zeroes};
use std::io::{BufRead, ErrorKind, Read, Seek, SeekFrom, Write};
use upcie_core::testing::Random;

const SIZE: usize = 4 << 20;

fn namespace(options: &str) -> Namespace {
    Controller::open(format!("emu:size=4M,{options}")).unwrap().namespace(1).unwrap()
}

/// Returns a length: often within a block, seldom more than one command or one step of the copy takes.
fn length(random: &mut Random) -> usize {
    let most = [600, 600, 9000, 70_000, 1_500_000][random.below(5)];
    random.below(most)
}

fn content(random: &mut Random, len: usize) -> Vec<u8> {
    let first = random.next();
    (0..len).map(|at| (first.wrapping_add(at as u64 * 7) >> 3) as u8).collect()
}

#[test]
fn bytes_at_any_offset_read_as_written() {
    for options in ["lba=512", "lba=4096,mdts=8K"] {
        let (namespace, mut random) = (namespace(options), Random(11));
        let mut model = vec![0; SIZE];
        for step in 0..300 {
            let offset = random.below(SIZE);
            let len = length(&mut random).min(SIZE - offset);
            if random.one_in(2) {
                let bytes = content(&mut random, len);
                namespace.write_at(offset as u64, &bytes).unwrap();
                model[offset..offset + len].copy_from_slice(&bytes);
            } else {
                let mut bytes = vec![0xee; len];
                namespace.read_at(offset as u64, &mut bytes).unwrap();
                assert!(
                    bytes == model[offset..offset + len],
                    "{options}: step {step}: {len} bytes at {offset}"
                );
            }
        }
        let mut all = vec![0; SIZE];
        namespace.read_at(0, &mut all).unwrap();
        assert!(all == model, "{options}");
    }
}

#[test]
fn bytes_beyond_the_end_are_refused() {
    let namespace = namespace("lba=512");
    for (offset, len) in
        [(SIZE as u64, 1), (SIZE as u64 - 700, 701), (u64::MAX, 1), (u64::MAX, 0), (1 << 63, 4096)]
    {
        let mut bytes = vec![0xee; len];
        for error in [namespace.write_at(offset, &bytes), namespace.read_at(offset, &mut bytes)] {
            let text = error.unwrap_err().to_string();
            assert!(text.contains(&format!("at byte {offset}")) && text.contains("4194304 bytes"), "{text}");
        }
    }
    let mut last = [0xee; 700];
    namespace.read_at(SIZE as u64 - 700, &mut last).unwrap();
    assert_eq!(last, [0; 700], "a write that was refused has written");
    namespace.read_at(SIZE as u64, &mut []).unwrap();
}

#[test]
fn concurrent_writes_within_a_block_lose_nothing() {
    let namespace = namespace("lba=4096");
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let namespace = &namespace;
            scope.spawn(move || {
                for at in (thread..4096).step_by(64) {
                    namespace.write_at(at as u64, &[thread as u8 + 1]).unwrap();
                }
            });
        }
    });
    let mut block = [0; 4096];
    namespace.read_at(0, &mut block).unwrap();
    for (at, byte) in block.iter().enumerate() {
        let wanted = if at % 64 < 4 { at as u8 % 64 + 1 } else { 0 };
        assert_eq!(*byte, wanted, "byte {at}");
    }
}

#[test]
fn a_stream_behaves_like_a_file() {
    let (namespace, mut random) = (namespace("lba=512"), Random(12));
    let mut stream = namespace.stream();
    let mut model = std::io::Cursor::new(vec![0; SIZE].into_boxed_slice());
    for step in 0..400 {
        let len = length(&mut random);
        match random.below(6) {
            0 => {
                let to = [
                    SeekFrom::Start(random.below(SIZE + 10) as u64),
                    SeekFrom::End(-(random.below(SIZE) as i64)),
                    SeekFrom::Current(random.below(2000) as i64 - 1000),
                ][random.below(3)];
                // The standard cursor and the stream agree on what is an error, too.
                match (stream.seek(to), model.seek(to)) {
                    (Ok(ours), Ok(theirs)) => assert_eq!(ours, theirs, "step {step}"),
                    (ours, theirs) => {
                        assert_eq!(ours.map_err(|e| e.kind()), theirs.map_err(|e| e.kind()), "step {step}")
                    }
                }
            }
            1 | 2 => {
                let room = SIZE.saturating_sub(model.position() as usize);
                let bytes = content(&mut random, len.min(room));
                stream.write_all(&bytes).unwrap();
                model.write_all(&bytes).unwrap();
            }
            3 => {
                let found = stream.fill_buf().unwrap();
                let at = model.position() as usize;
                assert!(
                    found.is_empty() == (at >= SIZE) && model.get_ref()[at.min(SIZE)..].starts_with(found)
                );
            }
            _ => {
                let (mut ours, mut theirs) = (Vec::new(), Vec::new());
                Read::by_ref(&mut stream).take(len as u64).read_to_end(&mut ours).unwrap();
                Read::by_ref(&mut model).take(len as u64).read_to_end(&mut theirs).unwrap();
                assert!(ours == theirs, "step {step}: {len} bytes");
            }
        }
    }
    drop(stream);
    let mut all = vec![0; SIZE];
    namespace.read_at(0, &mut all).unwrap();
    assert!(all == **model.get_ref());
}

#[test]
fn a_full_namespace_is_an_error_to_a_stream() {
    let namespace = namespace("lba=512");
    let mut stream = namespace.stream();
    stream.seek(SeekFrom::End(-3)).unwrap();
    assert_eq!(stream.write(b"four").unwrap(), 3);
    let error = stream.write(b"r").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::StorageFull);
    assert!(error.to_string().contains("4194304 bytes"), "{error}");
    assert_eq!(stream.read(&mut [0; 4]).unwrap(), 0);
    drop(stream);
    let mut end = [0; 3];
    namespace.read_at(SIZE as u64 - 3, &mut end).unwrap();
    assert_eq!(&end, b"fou");
}

/// Bytes whose write failed stay for the next try, and are not counted as written.
#[test]
fn a_stream_keeps_the_data_of_a_failed_write() {
    let controller = Controller::open("emu:size=4M,ro=true").unwrap();
    let namespace = controller.namespace(1).unwrap();
    let mut stream = namespace.stream();
    stream.write_all(&[7; 600]).unwrap();
    for _ in 0..2 {
        let error = stream.flush().unwrap_err();
        assert!(error.to_string().contains("failed"), "{error}");
    }
    assert!(stream.sync().is_err());
}

#[test]
fn handles_print_the_name_that_was_opened() {
    let controller = Controller::open("emu:size=1M").unwrap();
    assert_eq!(controller.to_string(), controller.name());
    let namespace = controller.namespace(1).unwrap();
    assert_eq!(namespace.to_string(), format!("{controller} namespace 1"));
    let mut queue = controller.queue_pair().create::<u64>().unwrap();
    queue
        .turn()
        .unwrap()
        .read(&namespace, namespace.blocks() - 1, controller.alloc(512).unwrap(), 3)
        .unwrap();
    assert!(queue.wait(crate::Wait::Poll, std::time::Duration::from_secs(60)).unwrap());
    let done = queue.turn().unwrap().next().unwrap();
    assert_eq!((done.result(), done.buffer().len()), (Ok(()), 512));
}

/// A namespace whose blocks the driver does not understand: each byte of a buffer would count as a block, and the controller
/// would write whole blocks into it.
#[test]
fn no_path_sends_a_command_to_an_unusable_namespace() {
    let controller = Controller::open("emu:size=1M").unwrap();
    let mut known = open::ask(controller.inner(), 1, &mut controller.inner().limit()).unwrap();
    known.unusable = Some("a format of tomorrow".into());
    let namespace = Namespace::new(controller.inner().clone(), known);
    assert!(matches!(namespace.check_usable().unwrap_err().failure(), Failure::Unsupported { .. }));
    let mut queue = controller.queue_pair().create::<u8>().unwrap();
    let mut turn = queue.turn().unwrap();
    for len in [1, 512, 64 << 10] {
        let buffer = || controller.alloc(len).unwrap();
        for refused in [
            turn.read(&namespace, 0, buffer(), 0),
            turn.write(&namespace, 0, buffer(), 0),
            turn.compare(&namespace, 0, buffer(), 0),
            turn.deallocate(&namespace, buffer(), 1, 0),
            turn.verify(&namespace, 0, 1, 0),
            turn.write_uncorrectable(&namespace, 0, 1, 0),
            turn.write_zeroes(Zeroes::new(&namespace, 0, 1), 0),
            turn.copy(&namespace, buffer(), 1, 0, 0),
            turn.flush(&namespace, 0),
        ] {
            assert_eq!(refused.unwrap_err().reason, Refusal::Unsupported, "{len} bytes");
        }
    }
    assert!(turn.is_empty());
    drop(turn);
    assert!(namespace.read(0, &mut controller.alloc(512).unwrap()).is_err());
}

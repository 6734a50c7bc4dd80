//! Flags, protection and metadata apart from the data, for the commands besides Read and Write that move blocks: Compare, the fused
//! Compare and Write, Zone Append.

use upcie_nvme::{
    Controller, DmaBuf, Io, Namespace, Refusal, WithMetadata,
    protection::{Checks, Protect},
    spec::Status,
};
use upcie_tests::io::{create, finish};

const CHECKED: Protect =
    Protect::new().check(Checks::GUARD.union(Checks::REFERENCE_TAG).union(Checks::APPLICATION_TAG));
const SLBA: u64 = 24;

fn open(options: &str) -> (Controller, Namespace) {
    let controller = Controller::open(format!("emu:{options}")).unwrap();
    let namespace = controller.namespace(1).unwrap();
    (controller, namespace)
}

/// Makes data of `count` blocks of `namespace` and, apart from it, their protection information.
fn protected(controller: &Controller, namespace: &Namespace, count: usize, seed: usize) -> WithMetadata {
    let format = namespace.format();
    let bytes: Vec<u8> = (0..count * format.data_size()).map(|at| (at / 512 + at * seed) as u8).collect();
    let mut tags = vec![0; count * format.metadata_size()];
    format.generate_separate(SLBA, &bytes, &mut tags, &CHECKED);
    let buffer = |bytes: &[u8]| {
        let mut buffer = controller.alloc(bytes.len()).unwrap();
        buffer.write_at(0, bytes);
        buffer
    };
    WithMetadata { data: buffer(&bytes), metadata: buffer(&tags) }
}

#[test]
fn blocks_with_metadata_apart_are_compared() {
    for format in ["ms=8,pi=1,serial=APART16", "ms=16,pi=2,guard=64,serial=APART64"] {
        let (controller, namespace) = open(&format!("size=1M,mdts=16K,{format}"));
        // Four commands.
        let WithMetadata { mut data, mut metadata } = protected(&controller, &namespace, 128, 3);
        let io = Io::write(&namespace, SLBA).protect(CHECKED);
        namespace.run_with_metadata(io, &mut data, &mut metadata).unwrap();
        assert!(namespace.compare_with_metadata(io, &mut data, &mut metadata).unwrap(), "{format}");
        for at in [0, 20_000, 65_535] {
            let before = data.to_vec()[at];
            data.write_at(at, &[!before]);
            assert!(!namespace.compare_with_metadata(io, &mut data, &mut metadata).unwrap(), "byte {at}");
            data.write_at(at, &[before]);
        }
        let wrong = Io::write(&namespace, SLBA).protect(CHECKED.application_tag(1));
        let error = namespace.compare_with_metadata(wrong, &mut data, &mut metadata).unwrap_err();
        assert_eq!(error.status(), Some(Status::APPLICATION_TAG_CHECK_ERROR), "{format}");

        let mut queue = create::<u64>(controller.queue_pair().depth(8));
        for (seed, wanted) in [(3, Status::SUCCESS), (5, Status::COMPARE_FAILURE)] {
            // The same first blocks, or others.
            let buffers = protected(&controller, &namespace, 8, seed);
            queue.turn().unwrap().compare_with_metadata(io, buffers, 1).unwrap();
            assert_eq!(finish(&mut queue).remove(0).status(), wanted, "{format}");
        }
        let few = WithMetadata {
            metadata: controller.alloc(8).unwrap(),
            ..protected(&controller, &namespace, 8, 3)
        };
        let refused = queue.turn().unwrap().compare_with_metadata(io, few, 1).unwrap_err();
        assert_eq!(refused.reason, Refusal::MetadataLength);
    }
}

#[test]
fn blocks_with_metadata_at_their_end_are_compared_with_checks() {
    let (controller, namespace) = open("size=1M,ms=8,pi=1,extended=true,serial=END");
    let mut bytes = vec![0x37; 8 * 520];
    namespace.format().generate(SLBA, &mut bytes, &CHECKED);
    let mut buffer = controller.alloc(bytes.len()).unwrap();
    buffer.write_at(0, &bytes);
    let io = Io::write(&namespace, SLBA).protect(CHECKED).fua();
    namespace.run(io, &mut buffer).unwrap();
    assert!(namespace.compare_with(io, &mut buffer).unwrap());
    let wrong = Io::write(&namespace, SLBA).protect(CHECKED.application_tag(1));
    let error = namespace.compare_with(wrong, &mut buffer).unwrap_err();
    assert_eq!(error.status(), Some(Status::APPLICATION_TAG_CHECK_ERROR));
    // The controller can't make what it compares.
    let made = Io::write(&namespace, SLBA).protect(Protect::new().action());
    let error = namespace.compare_with(made, &mut controller.alloc(512).unwrap()).unwrap_err();
    assert_eq!(error.status(), Some(Status::INVALID_PROTECTION_INFORMATION));
}

#[test]
fn a_fused_pair_has_metadata_apart() {
    let (controller, namespace) = open("size=1M,ms=8,pi=1,serial=FUSED");
    let mut queue = create::<u64>(controller.queue_pair().depth(8));
    let old = || protected(&controller, &namespace, 4, 3);
    let new = || protected(&controller, &namespace, 4, 7);
    let io = Io::write(&namespace, SLBA).protect(CHECKED);
    let WithMetadata { mut data, mut metadata } = old();
    namespace.run_with_metadata(io, &mut data, &mut metadata).unwrap();
    let failed = [Status::COMPARE_FAILURE, Status::ABORTED_FAILED_FUSED];
    for wanted in [[Status::SUCCESS; 2], failed] {
        queue.turn().unwrap().compare_and_write_with(io, [old(), new()], [0, 1]).unwrap();
        let mut done = finish(&mut queue);
        done.sort_by_key(|done| *done.tag());
        let statuses: Vec<Status> = done.iter().map(|done| done.status()).collect();
        assert_eq!(statuses, wanted);
        for done in done {
            let buffers = WithMetadata::from(done.into_parts().2);
            assert_eq!((buffers.data.len(), buffers.metadata.len()), (4 * 512, 4 * 8));
        }
    }
    let WithMetadata { mut data, mut metadata } = new();
    assert!(namespace.compare_with_metadata(io, &mut data, &mut metadata).unwrap());
    let plain = [old(), WithMetadata { metadata: DmaBuf::empty(), ..new() }];
    let refused = queue.turn().unwrap().compare_and_write_with(io, plain, [0, 1]).unwrap_err();
    assert_eq!(refused.reason, Refusal::MetadataLength);
}

#[test]
fn an_append_has_flags_and_protection() {
    let (controller, namespace) = open("size=1M,zoned=true,zone-size=64K,serial=APPEND");
    let zones = namespace.zones().unwrap();
    let zone = zones.start_of(2);
    let mut buffer = controller.alloc(4096).unwrap();
    assert_eq!(zones.append_with(Io::write(&namespace, zone).fua(), &mut buffer).unwrap(), zone);
    let mut queue = create::<u64>(controller.queue_pair().depth(8));
    let io = Io::write(&namespace, zone).protect(CHECKED);
    let refused = queue.turn().unwrap().append_with(io, controller.alloc(4096).unwrap(), 1).unwrap_err();
    assert_eq!(refused.reason, Refusal::Unprotected);
    let buffers = WithMetadata { data: refused.buffer, metadata: controller.alloc(64).unwrap() };
    let plain = Io::write(&namespace, zone);
    let refused = queue.turn().unwrap().append_with_metadata(plain, buffers, 1).unwrap_err();
    assert_eq!(refused.reason, Refusal::NoMetadata);
    assert_eq!(WithMetadata::from(refused.buffer).metadata.len(), 64);
}

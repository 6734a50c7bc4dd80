//! A controller of version 2.1: what is mandatory since 2.0.

use super::host::{Host, exact};
use crate::spec::{
    Capabilities, Cns, Command, Csi, DatasetDword11, DatasetRange, FromBytes, IdentifyController,
    IdentifyNvmController, IndependentNamespace, IntoBytes, NvmOpcode, ReadyTimeouts, Status, Version,
    offset,
};

#[test]
fn registers_and_identify_data_are_those_of_the_version() {
    let mut host = Host::new("size=1M,version=2.1");
    let cap = Capabilities::from_bits(host.bar.read_u64(offset::CAP as u64).unwrap());
    let crto = ReadyTimeouts::from_bits(host.bar.read_u32(offset::CRTO as u64).unwrap());
    assert_eq!(host.bar.read_u32(offset::VS as u64).unwrap(), 0x0002_0100);
    assert_eq!((cap.crms(), cap.to(), crto.crwmt(), crto.crimt()), (1, 255, 300, 0));
    assert!(cap.supports_nvm() && cap.supports_command_set_profiles());
    let page = host.page(Command::identify(Cns::CONTROLLER, 0, 0));
    let id = IdentifyController::read_from_bytes(&page).unwrap();
    assert_eq!(id.version(), Version::of(2, 1, 0));
    let sets = host.page(Command::identify(Cns::COMMAND_SETS, 0, 0xffff));
    assert_eq!(sets[..16], [1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], "the NVM command set alone");
    let page = host.page(Command::identify(Cns::INDEPENDENT_NAMESPACE, 1, 0));
    assert_eq!(IndependentNamespace::read_from_bytes(&page).unwrap().status, 1, "ready");

    // Version 1.4 reports none of it.
    let mut host = Host::new("size=1M");
    let cap = Capabilities::from_bits(host.bar.read_u64(offset::CAP as u64).unwrap());
    assert_eq!((cap.crms(), host.bar.read_u32(offset::CRTO as u64).unwrap()), (0, 0));
    let command = host.with_page(Command::identify(Cns::INDEPENDENT_NAMESPACE, 1, 0));
    assert_eq!(exact(host.admin.status(command)), (Status::INVALID_FIELD, true));
}

#[test]
fn commands_beyond_the_reported_limits_fail() {
    let mut host = Host::new("size=64M,version=2.1");
    let page = host.page(Command::identify_command_set(Cns::COMMAND_SET_CONTROLLER, 0, Csi::NVM));
    let id = IdentifyNvmController::read_from_bytes(&page).unwrap();
    let sizes = [id.max_verify(4096), id.max_write_zeroes(4096), id.max_write_uncorrectable(4096)];
    assert_eq!(sizes, [Some(8 << 20); 3]);
    assert_eq!((id.dmrl, id.dmrsl, id.dmsl), (128, 1 << 24, 1 << 30));
    let mut queue = host.queue(1, [16, 16], None);
    for opcode in [NvmOpcode::VERIFY, NvmOpcode::WRITE_ZEROES, NvmOpcode::WRITE_UNCORRECTABLE] {
        let command = |blocks: u32| Command { cdw12: blocks - 1, ..Command::io(opcode, 1) };
        assert_eq!(queue.status(command(16_384)), Status::SUCCESS, "{opcode}");
        assert_eq!(exact(queue.status(command(16_385))), (Status::INVALID_FIELD, true), "{opcode}");
    }
    let mut deallocate = |ranges: &[DatasetRange]| {
        host.set(0, ranges.as_bytes());
        let (cdw10, cdw11) = (ranges.len() as u32 - 1, DatasetDword11::new().with_ad(true).into_bits());
        let command = Command { cdw10, cdw11, ..Command::io(NvmOpcode::DATASET_MANAGEMENT, 1) };
        queue.status(host.with_page(command))
    };
    assert_eq!(deallocate(&[DatasetRange::new(0, 8); 128]), Status::SUCCESS);
    for ranges in [&[DatasetRange::new(0, 8); 129][..], &[DatasetRange::new(0, (1 << 24) + 1)]] {
        let limit = (Status::COMMAND_SIZE_LIMIT_EXCEEDED, true);
        assert_eq!(exact(deallocate(ranges)), limit, "{} ranges", ranges.len());
    }
}

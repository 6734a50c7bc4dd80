//! Identify data of the controller and its namespaces.

use super::{Options, Sgls, config, logs, namespace::Namespace, registers::VERSION};
use crate::spec::{
    Cns, Command, DescriptorHeader, IdentifyController, IdentifyDword10, IdentifyNamespace, LbaFormat,
    NamespaceIdType, NamespaceList, OptionalCommands, PowerState, Status,
};
use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::SystemTime,
};
use zerocopy::{FromZeros, IntoBytes};

const MODEL: &str = "uPCIe embedded NVMe controller";
/// Asynchronous Event Requests held, and Abort commands at a time, 0's based.
pub(super) const AERL: u8 = 3;

/// Command retry delays, in units of 100 ms.
const CRDT: [u16; 3] = [1, 5, 600];

/// Block sizes by format index, as powers of two.
const FORMATS: [u8; 2] = [9, 12];

const INVALID_NAMESPACE: Status = Status::INVALID_NAMESPACE_OR_FORMAT.with_do_not_retry();

/// Returns the 4096 bytes that an Identify command asks for.
pub(super) fn page(
    options: &Options,
    namespaces: &[Namespace],
    has_cache: bool,
    subsystem: [u8; 16],
    command: &Command,
) -> Result<Vec<u8>, Status> {
    let nsid = command.nsid;
    let found = namespaces.get(nsid.wrapping_sub(1) as usize);
    let found = found.ok_or(INVALID_NAMESPACE);
    match IdentifyDword10::from_bits(command.cdw10).cns() {
        // An inactive identifier has zeros.
        Cns::NAMESPACE if !found?.is_active() => Ok(vec![0; 4096]),
        Cns::NAMESPACE => Ok(namespace(options, found?)),
        Cns::CONTROLLER => Ok(controller(options, has_cache, subsystem)),
        Cns::ACTIVE_NAMESPACES if nsid >= 0xffff_fffe => Err(INVALID_NAMESPACE),
        Cns::ACTIVE_NAMESPACES => {
            let mut list = NamespaceList::new_zeroed();
            let active = (1..).zip(namespaces).filter(|(_, namespace)| namespace.is_active());
            let above = active.map(|(active, _)| active).filter(|active| *active > nsid);
            for (entry, active) in list.nsids.iter_mut().zip(above) {
                *entry = active;
            }
            Ok(list.as_bytes().to_vec())
        }
        Cns::NAMESPACE_DESCRIPTORS => {
            found.and_then(|found| if found.is_active() { Ok(found) } else { Err(INVALID_NAMESPACE) })?;
            let header = DescriptorHeader { nidt: NamespaceIdType::UUID.0, nidl: 16, ..Default::default() };
            let mut list = header.as_bytes().to_vec();
            list.extend(uuid(&options.serial, nsid));
            list.resize(4096, 0);
            Ok(list)
        }
        _ => Err(Status::INVALID_FIELD.with_do_not_retry()),
    }
}

fn controller(options: &Options, has_cache: bool, subsystem: [u8; 16]) -> Vec<u8> {
    let mut id = IdentifyController::new_zeroed();
    id.vid = config::VENDOR;
    id.ssvid = config::VENDOR;
    id.sn = padded(&options.serial);
    id.mn = padded(MODEL);
    id.fr = logs::FIRMWARE;
    id.rab = 6;
    // In pages of CAP.MPSMIN.
    id.mdts = (options.mdts / options.mpsmin).trailing_zeros() as u8;
    id.cntlid = 1;
    id.ver = VERSION.into_bits();
    // Namespace attributes changed, firmware activation starts.
    id.oaes = 1 << 8 | 1 << 9;
    id.crdt = CRDT;
    id.cntrltype = 1;
    id.acl = AERL;
    id.aerl = AERL;
    // One firmware slot, read-only.
    id.frmw = 0x03;
    // Commands supported and effects; offsets and lengths of 32 bits; the pages that list log pages, features and
    // management commands.
    id.lpa = 0x26;
    id.elpe = (logs::ERROR_ENTRIES - 1) as u8;
    id.wctemp = 343;
    id.cctemp = 353;
    id.sqes = 0x66;
    id.cqes = 0x44;
    id.nn = options.namespaces;
    id.sgls = match options.sgl {
        Sgls::None => 0,
        Sgls::Dwords => IdentifyController::SGLS_DWORDS,
        Sgls::Bytes => IdentifyController::SGLS_BYTES,
    };
    if options.sgl != Sgls::None {
        id.sgls |= IdentifyController::SGLS_BIT_BUCKET | IdentifyController::SGLS_METADATA;
    }
    let optional = OptionalCommands::DATASET_MANAGEMENT | OptionalCommands::WRITE_ZEROES;
    id.oncs = (optional | OptionalCommands::SAVED_FEATURES).bits();
    // Flush takes all namespaces by FFFFFFFFh.
    id.vwc = 0x06 | u8::from(has_cache);
    let name = format!("nqn.2014-08.org.nvmexpress:uuid:{}", text(&subsystem));
    id.subnqn[..name.len()].copy_from_slice(name.as_bytes());
    id.psd[0] = PowerState { mp: 100, ..Default::default() };
    id.as_bytes().to_vec()
}

fn namespace(options: &Options, namespace: &Namespace) -> Vec<u8> {
    let mut id = IdentifyNamespace::new_zeroed();
    id.nsze = namespace.blocks;
    id.ncap = namespace.blocks;
    id.nuse = namespace.blocks;
    // Currently write protected.
    id.nsattr = options.ro.into();
    id.nlbaf = (FORMATS.len() - 1) as u8;
    // Deallocated blocks read as zeros, and Write Zeroes may deallocate; nothing is read with `null=true`.
    id.dlfeat = if options.null { 0 } else { 0b1001 };
    id.flbas = FORMATS.iter().position(|&shift| shift == namespace.shift).unwrap_or(0) as u8;
    for (format, shift) in id.lbaf.iter_mut().zip(FORMATS) {
        *format = LbaFormat::new().with_lbads(shift);
    }
    id.as_bytes().to_vec()
}

/// Returns ASCII text, padded with spaces.
fn padded<const N: usize>(text: &str) -> [u8; N] {
    let mut field = [b' '; N];
    let len = text.len().min(N);
    field[..len].copy_from_slice(&text.as_bytes()[..len]);
    field
}

/// Makes a UUID for the subsystem of an embedded controller that keeps its data in memory: unique on this
/// machine.
pub(super) fn unique() -> [u8; 16] {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    uuid(&format!("{}-{}-{number}", std::process::id(), since.as_nanos()), 0)
}

/// Makes a UUID (version 8) of a namespace of the controller with this serial number; of the subsystem with
/// `nsid` 0. It is the same each time, so that hosts recognise the namespace.
pub(super) fn uuid(serial: &str, nsid: u32) -> [u8; 16] {
    // FNV-1a, 128 bits.
    let hash = serial
        .bytes()
        .chain(nsid.to_be_bytes())
        .fold(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d_u128, |hash, byte| {
            (hash ^ u128::from(byte)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b)
        });
    let mut id = hash.to_be_bytes();
    id[6] = id[6] & 0x0f | 0x80;
    id[8] = id[8] & 0x3f | 0x80;
    id
}

fn text(uuid: &[u8; 16]) -> String {
    let hex: String = uuid.iter().map(|byte| format!("{byte:02x}")).collect();
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}

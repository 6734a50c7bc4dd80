//! Identify data of the controller and its namespaces.

use super::{
    Options, Sgls, boot, config, firmware,
    formats::{FORMATS, named_format},
    host_buffer, host_data,
    identity::{self, Identifiers, Identity},
    key_value::Keys,
    logs,
    namespace::{Away, Namespace, WRITE_PROTECTION},
    optional::{COPY_BLOCKS, COPY_FORMATS, COPY_RANGE_BLOCKS, COPY_RANGES},
    paths, placement, sanitize, self_test,
    virtualization::Virtualization,
    zones,
};
use crate::spec::{
    ALL_NAMESPACES, Cns, Command, Csi, DescriptorHeader, IdentifyController, IdentifyDword10,
    IdentifyDword11, IdentifyNamespace, IndependentNamespace, NamespaceIdType, NamespaceList, NvmNamespace,
    OptionalAdmin, OptionalCommands, PowerState, Status,
};
use zerocopy::{FromZeros, IntoBytes};

const MODEL: &str = "uPCIe embedded NVMe controller";
/// Asynchronous Event Requests held, and Abort commands at a time, 0's based.
pub(super) const AERL: u8 = 3;

/// Command retry delays, in units of 100 ms.
const CRDT: [u16; 3] = [1, 5, 600];

const INVALID_FIELD: Status = Status::INVALID_FIELD.with_do_not_retry();
const INVALID_NAMESPACE: Status = Status::INVALID_NAMESPACE_OR_FORMAT.with_do_not_retry();

/// The state that Identify data is made of.
pub(super) struct Known<'a> {
    pub options: &'a Options,
    pub namespaces: &'a [Namespace],
    pub keys: &'a [Option<Keys>],
    pub has_cache: bool,
    pub subsystem: Identity,
    /// The identity that those of the namespaces are made of.
    pub identity: Identity,
    /// The firmware revision in use.
    pub revision: [u8; 8],
    /// Bytes of the medium, and those that belong to no namespace.
    pub capacity: (u64, u64),
    /// The controller's identifier, and the number of controllers in the NVM subsystem.
    pub controller: (u16, u16),
    /// The percentage of the namespace in question that remains to be formatted.
    pub unformatted: u8,
    /// Present if this is a primary controller.
    pub primary: Option<&'a Virtualization>,
}

impl Known<'_> {
    /// Returns FPI: it is supported, and the percentage that remains to be formatted.
    fn format_progress(&self) -> u8 {
        1 << 7 | self.unformatted
    }

    fn identifiers(&self, nsid: u32, namespace: &Namespace) -> Identifiers {
        Identifiers::new(&self.identity, nsid, namespace.generation)
    }
}

/// Returns the 4096 bytes that an Identify command asks for.
pub(super) fn page(known: &Known<'_>, command: &Command) -> Result<Vec<u8>, Status> {
    let (options, nsid) = (known.options, command.nsid);
    let found = known.namespaces.get(nsid.wrapping_sub(1) as usize).ok_or(INVALID_NAMESPACE);
    let dword = IdentifyDword10::from_bits(command.cdw10);
    match dword.cns() {
        // The data that all namespaces have in common.
        Cns::NAMESPACE if nsid == ALL_NAMESPACES => Ok(namespace(known, None, &Namespace::NONE)),
        // An inactive identifier has zeros.
        Cns::NAMESPACE if !found?.is_active() => Ok(vec![0; 4096]),
        Cns::ALLOCATED_NAMESPACE if !found?.is_allocated() => Ok(vec![0; 4096]),
        // Without blocks there is no such data.
        Cns::NAMESPACE | Cns::ALLOCATED_NAMESPACE if found?.keys => {
            Err(Status::INVALID_COMMAND_SET.with_do_not_retry())
        }
        Cns::NAMESPACE | Cns::ALLOCATED_NAMESPACE => Ok(namespace(known, Some(nsid), found?)),
        Cns::COMMAND_SET_NAMESPACE if command.cdw11 >> 24 == 0 && found?.command_set() == Csi::NVM => {
            Ok(nvm_namespace(found?))
        }
        // The data that all namespaces with a block format have in common: here the same for each.
        Cns::FORMAT_NAMESPACE => named_format(command).map(|_| namespace(known, None, &Namespace::NONE)),
        Cns::COMMAND_SET_FORMAT_NAMESPACE if command.cdw11 >> 24 == 0 => {
            named_format(command).map(|_| nvm_formats().as_bytes().to_vec())
        }
        Cns::INDEPENDENT_NAMESPACE if options.has_command_sets() => {
            Ok(independent(known, found?, found?.is_active()))
        }
        Cns::INDEPENDENT_ALLOCATED_NAMESPACE if options.has_command_sets() => {
            Ok(independent(known, found?, found?.is_allocated()))
        }
        Cns::CONTROLLER => Ok(controller(known)),
        Cns::ACTIVE_NAMESPACES => list(known.namespaces, nsid, Namespace::is_active),
        Cns::ALLOCATED_NAMESPACES => list(known.namespaces, nsid, Namespace::is_allocated),
        Cns::NAMESPACE_DESCRIPTORS => {
            let found = found?;
            if !found.is_active() {
                return Err(INVALID_FIELD);
            }
            let ids = known.identifiers(nsid, found);
            let mut list = Vec::new();
            let mut add = |nidt: NamespaceIdType, nid: &[u8]| {
                let header = DescriptorHeader { nidt: nidt.0, nidl: nid.len() as u8, ..Default::default() };
                list.extend_from_slice(header.as_bytes());
                list.extend_from_slice(nid);
            };
            add(NamespaceIdType::EUI64, &ids.eui64);
            add(NamespaceIdType::NGUID, &ids.nguid);
            add(NamespaceIdType::UUID, &ids.uuid);
            if options.has_command_sets() {
                add(NamespaceIdType::CSI, &[found.command_set().0]);
            }
            list.resize(4096, 0);
            Ok(list)
        }
        cns if zones::has_structure(options, cns) => {
            let (all, progress) = (known.namespaces, known.format_progress());
            zones::page(options, all, known.keys, command, progress, &known.identity)
        }
        // A list of one.
        Cns::ENDURANCE_GROUPS if options.placement.on => {
            let listed = IdentifyDword11::from_bits(command.cdw11).cnssi() <= placement::GROUP;
            let mut page = [u16::from(listed), if listed { placement::GROUP } else { 0 }].as_bytes().to_vec();
            page.resize(4096, 0);
            Ok(page)
        }
        Cns::NAMESPACE_CONTROLLERS if !found?.is_active() => Ok(vec![0; 4096]),
        Cns::NAMESPACE_CONTROLLERS | Cns::CONTROLLERS => Ok(controllers(dword.cntid(), known.controller.1)),
        // This controller's, whichever the command names.
        Cns::PRIMARY_CONTROLLER => known.primary.map(Virtualization::capabilities).ok_or(INVALID_FIELD),
        Cns::SECONDARY_CONTROLLERS => known.primary.map(|all| all.list(dword.cntid())).ok_or(INVALID_FIELD),
        _ => Err(INVALID_FIELD),
    }
}

/// Returns a list of the namespaces with identifiers above `above` for which `listed` is true.
fn list(namespaces: &[Namespace], above: u32, listed: fn(&Namespace) -> bool) -> Result<Vec<u8>, Status> {
    if above >= 0xffff_fffe {
        return Err(INVALID_NAMESPACE);
    }
    let mut list = NamespaceList::new_zeroed();
    let all = (1..).zip(namespaces).filter(|(nsid, namespace)| *nsid > above && listed(namespace));
    for (entry, (nsid, _)) in list.nsids.iter_mut().zip(all) {
        *entry = nsid;
    }
    Ok(list.as_bytes().to_vec())
}

/// Returns a list of the controllers with identifiers from `first` on, of `count` in the NVM subsystem.
fn controllers(first: u16, count: u16) -> Vec<u8> {
    let ids: Vec<u16> = (first.max(1)..=count).take(2047).collect();
    let mut page = (ids.len() as u16).to_le_bytes().to_vec();
    page.extend(ids.iter().flat_map(|id| id.to_le_bytes()));
    page.resize(4096, 0);
    page
}

fn controller(known: &Known<'_>) -> Vec<u8> {
    let options = known.options;
    let mut id = IdentifyController::new_zeroed();
    id.vid = config::VENDOR;
    id.ssvid = config::VENDOR;
    id.sn = padded(&options.serial);
    id.mn = padded(MODEL);
    id.fr = known.revision;
    id.rab = 6;
    // Little endian.
    id.ieee = identity::OUI;
    id.ieee.reverse();
    // In pages of CAP.MPSMIN.
    id.mdts = (options.mdts / options.mpsmin).trailing_zeros() as u8;
    let (number, count) = known.controller;
    id.cntlid = number;
    // The NVM subsystem has several controllers.
    id.cmic = u8::from(count > 1) << 1;
    if options.functions.number > 0 {
        // It is the controller of a virtual function.
        id.cmic |= 1 << 2;
    }
    id.ver = options.version.into_bits();
    // Host identifiers of 128 bits, extended block formats.
    id.ctratt = 1 | 1 << 15;
    if options.placement.on {
        // Endurance groups, and flexible data placement.
        id.ctratt |= 1 << 4 | 1 << 19;
        id.endgidmax = placement::GROUP;
    }
    // Namespace attributes changed, firmware activation starts.
    id.oaes = 1 << 8 | 1 << 9;
    if options.zones.any() {
        // Zone descriptor changed.
        id.oaes |= 1 << 27;
    }
    if options.ana.is_some() {
        id.cmic |= 1 << 3;
        // Asymmetric namespace access changed.
        id.oaes |= 1 << 11;
        (id.anatt, id.anacap) = (paths::TRANSITION, paths::CAPABILITIES);
        (id.anagrpmax, id.nanagrpid) = (paths::GROUP, paths::GROUP);
    }
    if options.boot_partitions != 0 {
        id.bpcap = boot::CAPABILITIES;
    }
    id.crdt = CRDT;
    id.cntrltype = 1;
    id.acl = AERL;
    id.aerl = AERL;
    let changes = match count {
        1 => OptionalAdmin::FORMAT | OptionalAdmin::NAMESPACES,
        _ => OptionalAdmin::empty(),
    };
    let mut admin = changes | OptionalAdmin::FIRMWARE | OptionalAdmin::SELF_TEST;
    admin.set(OptionalAdmin::DIRECTIVES, options.placement.on);
    admin.set(OptionalAdmin::DOORBELL_BUFFER, options.dbbuf);
    admin.set(OptionalAdmin::VIRTUALIZATION, known.primary.is_some());
    id.oacs = admin.bits();
    id.frmw = firmware::UPDATES;
    id.fwug = firmware::GRANULARITY;
    id.edstt = self_test::EXTENDED_MINUTES;
    // One test at a time.
    id.dsto = 1;
    id.kas = host_data::KEEP_ALIVE_UNITS;
    id.sanicap = if count == 1 { sanitize::CAPABILITIES } else { 0 };
    if options.hmb > 0 {
        id.hmpre = (options.hmb / host_buffer::UNIT) as u32;
        id.hmmin = (host_buffer::least(options.hmb) / host_buffer::UNIT) as u32;
        id.hmminds = (host_buffer::LEAST / host_buffer::UNIT) as u32;
        id.hmmaxd = host_buffer::PIECES;
    }
    let (total, unallocated) = known.capacity;
    id.tnvmcap = u128::from(total).to_le_bytes();
    id.unvmcap = u128::from(unallocated).to_le_bytes();
    // Commands supported and effects; offsets and lengths of 32 bits; telemetry, with data area 4; the pages that list log
    // pages, features and management commands.
    id.lpa = 0x6e;
    id.elpe = (logs::ERROR_ENTRIES - 1) as u8;
    id.wctemp = 343;
    id.cctemp = 353;
    id.sqes = 0x66;
    id.cqes = 0x44;
    id.nn = options.most_namespaces();
    id.sgls = match options.sgl {
        Sgls::None => 0,
        Sgls::Dwords => IdentifyController::SGLS_DWORDS,
        Sgls::Bytes => IdentifyController::SGLS_BYTES,
    };
    if options.sgl != Sgls::None {
        id.sgls |= IdentifyController::SGLS_BIT_BUCKET | IdentifyController::SGLS_METADATA;
    }
    let optional = OptionalCommands::DATASET_MANAGEMENT
        | OptionalCommands::WRITE_ZEROES
        | OptionalCommands::COMPARE
        | OptionalCommands::VERIFY
        | OptionalCommands::WRITE_UNCORRECTABLE
        | OptionalCommands::COPY
        | OptionalCommands::RESERVATIONS;
    id.cdfs = COPY_FORMATS;
    id.oncs = (optional | OptionalCommands::SAVED_FEATURES | OptionalCommands::TIMESTAMP).bits();
    id.nwpc = WRITE_PROTECTION;
    options.atomic.tell_controller(&mut id);
    // Compare and Write, of the longest transfer.
    id.fuses = 1;
    id.acwu = (options.mdts / 512 - 1).min(u16::MAX.into()) as u16;
    // Cryptographic erase.
    id.fna = 1 << 2;
    // Flush takes all namespaces by FFFFFFFFh.
    id.vwc = 0x06 | u8::from(known.has_cache);
    let name = format!("nqn.2014-08.org.nvmexpress:uuid:{}", identity::text(&known.subsystem));
    id.subnqn[..name.len()].copy_from_slice(name.as_bytes());
    id.psd[0] = PowerState { mp: 100, ..Default::default() };
    id.as_bytes().to_vec()
}

/// Returns the Identify data of a namespace, which has identifiers if it has an NSID.
fn namespace(known: &Known<'_>, nsid: Option<u32>, namespace: &Namespace) -> Vec<u8> {
    let options = known.options;
    let mut id = IdentifyNamespace::new_zeroed();
    let blocks = namespace.size();
    (id.nsze, id.ncap, id.nuse) = (blocks, blocks, blocks);
    id.nvmcap = u128::from(namespace.capacity).to_le_bytes();
    // Several controllers have it.
    id.nmic = (known.controller.1 > 1).into();
    id.rescap = reservation_capabilities(options);
    id.fpi = known.format_progress();
    // Currently write protected.
    id.nsattr = (options.ro || namespace.write_protection != 0).into();
    if options.placement.on {
        id.endgid = placement::GROUP;
    }
    id.anagrpid = access_group(options);
    if let Some(nsid) = nsid {
        let ids = known.identifiers(nsid, namespace);
        (id.nguid, id.eui64) = (ids.nguid, ids.eui64);
    }
    options.atomic.tell_namespace(&mut id);
    id.mssrl = COPY_RANGE_BLOCKS;
    id.mcl = COPY_BLOCKS;
    id.msrc = (COPY_RANGES - 1) as u8;
    id.nlbaf = (FORMATS.len() - 1) as u8;
    // Deallocated blocks read as zeros, and Write Zeroes may deallocate; nothing is read with `null=true`.
    id.dlfeat = if options.null { 0 } else { 0b1001 };
    (id.flbas, id.dps) = namespace.layout.settings();
    // Metadata at the end of blocks and apart; types 1 to 3, in the first and in the last bytes.
    (id.mc, id.dpc) = (0x03, 0x1f);
    for (listed, format) in id.lbaf.iter_mut().zip(FORMATS) {
        *listed = format.listed();
    }
    id.as_bytes().to_vec()
}

/// Returns the Identify data of a namespace that does not depend on its command set; zeros for one that is not there.
fn independent(known: &Known<'_>, namespace: &Namespace, is_there: bool) -> Vec<u8> {
    let options = known.options;
    let mut id = IndependentNamespace::new_zeroed();
    if is_there {
        id.multi_path_and_sharing = (known.controller.1 > 1).into();
        id.attributes = (options.ro || namespace.write_protection != 0).into();
        if options.placement.on {
            id.endurance_group_id = placement::GROUP;
        }
        if !namespace.keys {
            id.reservation_capabilities = reservation_capabilities(options);
        }
        id.format_progress = known.format_progress();
        id.status = (namespace.away == Away::Not).into();
        id.ana_group_id = access_group(options);
    }
    id.as_bytes().to_vec()
}

/// Returns the ANA group of each namespace; 0 for none.
fn access_group(options: &Options) -> u32 {
    if options.ana.is_some() { paths::GROUP } else { 0 }
}

/// Returns RESCAP: reservations of all types, and the present meaning of Ignore Existing Key.
fn reservation_capabilities(options: &Options) -> u8 {
    0xfe | u8::from(options.keeps_reservations())
}

/// Returns the Identify data of the NVM command set: the protection information of all formats.
fn nvm_namespace(namespace: &Namespace) -> Vec<u8> {
    if !namespace.is_active() {
        return NvmNamespace::new_zeroed().as_bytes().to_vec();
    }
    let bits = u32::from(namespace.layout.format().storage_bits);
    let storage_tag_mask = u64::MAX.checked_shr(64 - bits).unwrap_or(0);
    NvmNamespace { storage_tag_mask, ..nvm_formats() }.as_bytes().to_vec()
}

/// Returns what all namespaces of the NVM command set have in common.
fn nvm_formats() -> NvmNamespace {
    let mut id = NvmNamespace::new_zeroed();
    // Storage tags with 16-bit guards, and their check by reads.
    id.protection_information_capabilities = 0b101;
    for (listed, format) in id.extended_formats.iter_mut().zip(FORMATS) {
        *listed = format.extension();
    }
    id
}

/// Returns ASCII text, padded with spaces.
fn padded<const N: usize>(text: &str) -> [u8; N] {
    let mut field = [b' '; N];
    let len = text.len().min(N);
    field[..len].copy_from_slice(&text.as_bytes()[..len]);
    field
}

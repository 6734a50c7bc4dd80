//! The options of an embedded controller: `key=value,…`, as `emu:` addresses and `nvme-emu` take them.

mod access;
mod atomic;
mod check;
mod controllers;
mod derived;
mod each;
mod functions;
mod key_value;
mod metadata;
mod placement;
mod text;
mod zones;

#[cfg(test)]
mod tests;

pub use atomic::AtomicOptions;
pub use functions::FunctionOptions;
pub use key_value::KeyOptions;
pub use placement::PlacementOptions;
pub(crate) use text::name;
pub use zones::ZoneOptions;
pub(super) use zones::{EXTENSION_UNIT, GRANULARITY};

use super::{
    Error, Sgls, boot,
    units::{self, number},
};
use crate::spec::{AccessState, Version};
use std::{ops::RangeInclusive, path::PathBuf, time::Duration};

/// Limit of `queues=`: the BAR of doorbells then has 4 MiB.
const MAX_QUEUES: u16 = 1024;
/// Limit of `size=`, 1 PiB: with the most namespaces the sum still fits a file offset.
const MAX_SIZE: u64 = 1 << 50;
/// The most vectors that MSI-X has.
const MAX_VECTORS: u16 = 2048;
const MAX_LATENCY: Duration = Duration::from_secs(60);
/// Limits of `cmb=` and `pmr=` beside 0.
const OWN_SIZES: RangeInclusive<u64> = 64 << 10..=256 << 20;
const OWN_TEXT: &str = "0, or a power of two from 64K to 256M";
/// The most messages that MSI has.
const MAX_MSI: u32 = 32;
/// The default version: the oldest that the driver needs, and the most common one.
const OLD: Version = Version::of(1, 4, 0);

/// Options of an embedded controller. `Display` prints them in the form that `FromStr` reads, without those
/// at their default.
///
/// ```
/// use upcie_nvme::emu::Options;
/// let options: Options = "size=64M,lba=4096,latency=50us".parse()?;
/// assert_eq!(options.size, Some(64 << 20));
/// assert_eq!(options.to_string(), "size=64M,lba=4096,latency=50us");
/// assert!("colour=red".parse::<Options>().is_err());
/// # Ok::<(), upcie_nvme::emu::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub struct Options {
    /// `size=`: bytes of each namespace, a multiple of its block size. Memory is taken only for blocks that were written, unless
    /// [`populate`](Self::populate) says otherwise.
    /// Default 1 GiB in memory, or all blocks of an existing file.
    pub size: Option<u64>,
    /// `lba=`: block sizes, 512 or 4096, of the namespaces in turn; the last one applies to all further ones.
    /// Default 512.
    pub lba: Vec<u32>,
    /// `ms=`: bytes of metadata per block, 0, 8, 16 or 64, of the namespaces in turn; the last one applies to all further ones.
    /// Default 0.
    pub ms: Vec<u16>,
    /// `pi=`: the type of protection information in the metadata, 1 to 3, or 0 for none, of the namespaces in turn as with
    /// `ms=`. Default 0.
    pub pi: Vec<u8>,
    /// `extended=true`: the metadata is at the end of each block, in the same buffer. By default it has a buffer of its own.
    pub extended: bool,
    /// `pi-first=true`: protection information is in the first bytes of the metadata, by default in the last.
    pub pi_first: bool,
    /// `guard=`: bits of the guard of protection information, 16, 32 or 64. Default 16.
    pub guard: u8,
    /// `sts=`: bits of the storage tag. Default 0, and 16 with a 32-bit guard.
    pub sts: u8,
    /// `namespaces=`: the number of namespaces, 1 to 1024, numbered from 1. Default 1.
    pub namespaces: u32,
    /// `nn=`: the most namespaces that hosts can have by creating them (NN), up to 1024. Default: as many as there are at the
    /// start; a host has to delete one first.
    pub nn: Option<u32>,
    /// `file=`: keeps the data in this file, one namespace after another, and locks it. With `size=` a
    /// missing file is created, and an empty one is given that size. In the text two commas stand for one
    /// comma of the name.
    pub file: Option<PathBuf>,
    /// `ro=true`: the namespaces are write protected. A file is opened for reading, and shared with other readers.
    pub ro: bool,
    /// `null=true`: moves no data, to measure everything else. Reads leave the buffer as it is.
    pub null: bool,
    /// `populate=true`: takes the memory for all blocks at the start, and not as they are written. By default
    /// `nvme-emu` does so, and a controller in this process does not.
    pub populate: Option<bool>,
    /// `latency=`: each I/O command completes no sooner than this after it was fetched. Default 0: at once.
    pub latency: Duration,
    /// `mdts=`: the most bytes of a command, a power of two from 8192 on. Default 1 MiB.
    pub mdts: u32,
    /// `queues=`: I/O queues of each kind, 1 to 1024, or 0 for a degraded controller, which grants none. Default 64.
    pub queues: u16,
    /// `depth=`: the most entries of an I/O queue, 2 to 65536, or 1 for a queue that can hold no command.
    /// Default 4096.
    pub depth: u32,
    /// `vectors=`: MSI-X vectors, 0 (no MSI-X) to 2048. Default 65: one for each queue.
    pub vectors: u16,
    /// `msi=`: MSI messages, a power of two up to 32. Default 0: no MSI.
    pub msi: u16,
    /// `intx=true`: the function has an interrupt pin.
    pub intx: bool,
    /// `wrr=true`: the controller has weighted round robin with an urgent class, and serves queues by their
    /// priority if the host chooses it.
    pub wrr: bool,
    /// `dbbuf=true`: the controller has Doorbell Buffer Config, and grants no more I/O queues of each kind than have their doorbells
    /// in a memory page of `mpsmin=`: 63 with 4096 bytes.
    pub dbbuf: bool,
    /// `version=`: the version of the Base specification that the controller reports, 1.4 or 2.1. With 2.1 it has all that is
    /// mandatory since: command set profiles (CAP.CSS bit 6), the time to become ready (CRTO, longer than CAP.TO can tell), and
    /// the limits of commands that MDTS does not cover. Default 1.4.
    pub version: Version,
    /// `ana=`: the state of Asymmetric Namespace Access in which the controller has its namespaces at first. Default: it reports
    /// none.
    pub ana: Option<AccessState>,
    /// `css=`: the command sets that CAP.CSS reports, decimal or hexadecimal. Default 1, the NVM command set.
    pub css: u8,
    /// `sgl=`: the scatter gather lists that the controller takes for I/O: `true` (of any bytes, the default), `dwords`
    /// (aligned to dwords, of whole dwords) or `false` (none).
    pub sgl: Sgls,
    /// `prps=`: the most PRPs of a Read, Write or Compare of blocks, at least 2; the controller fails one with more, whatever
    /// `mdts=` is. Default 0: any number.
    pub prps: u32,
    /// `hmb=`: the bytes of the host's memory that the controller wishes to use (HMPRE), whole pages of 64 KiB up to 1 GiB; it
    /// takes a quarter, too. Default 0: it uses none.
    pub hmb: u64,
    /// `cmb=`: the bytes of a controller memory buffer, a power of two from 64 KiB to 256 MiB. Default 0: none.
    pub cmb: u64,
    /// `pmr=`: the bytes of a persistent memory region, a power of two from 64 KiB to 256 MiB. Its contents last as long as the
    /// controller, also with `file=`. Default 0: none.
    pub pmr: u64,
    /// `boot-partitions=`: the bytes of each of two boot partitions, a multiple of 128 KiB up to 16 MiB. Default 0: none.
    pub boot_partitions: u64,
    /// `mpsmin=`: the least bytes of a memory page, a power of two from 4096 to 128 MiB. Default 4096.
    pub mpsmin: u32,
    /// `faults=`: fails as the [plan](super::FaultPlan) in this file says. It is read when the controller is made. In the text two
    /// commas stand for one comma of the name. Needs the feature `fault-files`.
    pub faults: Option<PathBuf>,
    /// `serial=`: the serial number, 1 to 20 printable ASCII characters. Default `EMU0`. The identifiers of namespaces in memory
    /// (NGUID, EUI64, UUID) follow from it if it is another one; those of a file follow from the file's path, too.
    pub serial: String,
    /// Atomic writes.
    pub atomic: Box<AtomicOptions>,
    /// Zoned namespaces.
    pub zones: Box<ZoneOptions>,
    /// Flexible data placement.
    pub placement: Box<PlacementOptions>,
    /// Key value namespaces.
    pub keys: Box<KeyOptions>,
    /// Secondary controllers, of virtual functions.
    pub functions: FunctionOptions,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            size: None,
            lba: vec![512],
            ms: vec![0],
            pi: vec![0],
            extended: false,
            pi_first: false,
            guard: 16,
            sts: 0,
            namespaces: 1,
            nn: None,
            file: None,
            ro: false,
            null: false,
            populate: None,
            latency: Duration::ZERO,
            mdts: 1 << 20,
            queues: 64,
            depth: 4096,
            vectors: 65,
            msi: 0,
            intx: false,
            wrr: false,
            dbbuf: false,
            version: OLD,
            ana: None,
            css: 1,
            sgl: Sgls::Bytes,
            prps: 0,
            hmb: 0,
            cmb: 0,
            pmr: 0,
            boot_partitions: 0,
            mpsmin: 4096,
            faults: None,
            serial: "EMU0".into(),
            atomic: Box::default(),
            zones: Box::default(),
            placement: Box::default(),
            keys: Box::default(),
            functions: FunctionOptions::default(),
        }
    }
}

impl Options {
    /// Sets one option from its text.
    ///
    /// # Errors
    /// [`Error::Option`]: there is no such key, or the value is invalid for it.
    pub fn set(&mut self, key: &str, value: &str) -> Result<(), Error> {
        let bad = |reason: &str| Error::Option { option: format!("{key}={value}"), reason: reason.into() };
        let bytes = |fits: fn(u64) -> bool, sizes: &str| match units::parse_bytes(value) {
            Ok(size) if fits(size) => Ok(size),
            Ok(_) => Err(bad(sizes)),
            Err(reason) => Err(bad(&reason)),
        };
        match key {
            "size" => {
                let size = units::parse_bytes(value).map_err(|reason| bad(&reason))?;
                if size == 0 || size > MAX_SIZE {
                    return Err(bad("1 block up to 1024T is possible"));
                }
                self.size = Some(size);
            }
            "lba" => {
                let size = |text| match units::parse_bytes(text) {
                    Ok(size @ (512 | 4096)) => Ok(size as u32),
                    _ => Err(bad("block sizes are 512 and 4096 (512+4096: one for each namespace)")),
                };
                self.lba = value.split('+').map(size).collect::<Result<_, _>>()?;
            }
            "ms" => {
                let size = |text: &str| match text.parse() {
                    Ok(size @ (0 | 8 | 16 | 64)) => Ok(size),
                    _ => Err(bad("0, 8, 16 or 64 bytes (0+8: one for each namespace)")),
                };
                self.ms = value.split('+').map(size).collect::<Result<_, _>>()?;
            }
            "pi" => {
                let kind = |text: &str| match text.parse() {
                    Ok(kind @ 0..=3) => Ok(kind),
                    _ => Err(bad("0 for none, or a type 1 to 3 (0+1: one for each namespace)")),
                };
                self.pi = value.split('+').map(kind).collect::<Result<_, _>>()?;
            }
            "extended" => self.extended = value.parse().map_err(|_| bad("true or false"))?,
            "pi-first" => self.pi_first = value.parse().map_err(|_| bad("true or false"))?,
            "guard" => {
                self.guard = match value {
                    "16" => 16,
                    "32" => 32,
                    "64" => 64,
                    _ => return Err(bad("16, 32 or 64")),
                };
                if self.guard == 32 && self.sts == 0 {
                    self.sts = 16;
                }
            }
            "sts" => self.sts = number(value, 0, 64).ok_or_else(|| bad("0 to 64 bits"))? as u8,
            "namespaces" => self.namespaces = number(value, 1, 1024).ok_or_else(|| bad("1 to 1024"))?,
            "nn" => self.nn = Some(number(value, 1, 1024).ok_or_else(|| bad("1 to 1024"))?),
            "file" if value.is_empty() => return Err(bad("the path is missing")),
            "file" => self.file = Some(value.into()),
            "ro" => self.ro = value.parse().map_err(|_| bad("true or false"))?,
            "null" => self.null = value.parse().map_err(|_| bad("true or false"))?,
            "populate" => self.populate = Some(value.parse().map_err(|_| bad("true or false"))?),
            "latency" => {
                let time = units::parse_time(value, None).map_err(|reason| bad(&reason))?;
                if time > MAX_LATENCY {
                    return Err(bad("at most 60s"));
                }
                self.latency = time;
            }
            "mdts" => {
                let fits = |size: u64| size.is_power_of_two() && (8192..=1 << 30).contains(&size);
                self.mdts = bytes(fits, "a power of two from 8K to 1G")? as u32;
            }
            "queues" => {
                self.queues = number(value, 0, MAX_QUEUES.into()).ok_or_else(|| bad("0 to 1024"))? as u16;
            }
            "depth" => self.depth = number(value, 1, 65536).ok_or_else(|| bad("1 to 65536"))?,
            "vectors" => {
                self.vectors = number(value, 0, MAX_VECTORS.into()).ok_or_else(|| bad("0 to 2048"))? as u16;
            }
            "msi" => {
                self.msi = number(value, 0, MAX_MSI)
                    .filter(|&count| count == 0 || count.is_power_of_two())
                    .ok_or_else(|| bad("0, or a power of two up to 32"))? as u16;
            }
            "intx" => self.intx = value.parse().map_err(|_| bad("true or false"))?,
            "wrr" => self.wrr = value.parse().map_err(|_| bad("true or false"))?,
            "dbbuf" => self.dbbuf = value.parse().map_err(|_| bad("true or false"))?,
            "version" => {
                self.version = match value {
                    "1.4" => OLD,
                    "2.1" => Version::of(2, 1, 0),
                    _ => return Err(bad("1.4 or 2.1")),
                };
            }
            "ana" => {
                let states = "optimized, non-optimized, inaccessible, persistent-loss or change";
                self.ana = Some(access::parse(value).ok_or_else(|| bad(states))?);
            }
            "css" => {
                let parsed = match value.strip_prefix("0x") {
                    Some(digits) => u8::from_str_radix(digits, 16),
                    None => value.parse(),
                };
                self.css = parsed.map_err(|_| bad("0 to 255, or 0x and hexadecimal digits"))?;
            }
            "sgl" => self.sgl = value.parse().map_err(|_| bad("true, dwords or false"))?,
            "prps" => self.prps = number(value, 2, u32::MAX).ok_or_else(|| bad("2 or more"))?,
            "hmb" => {
                let fits = |size: u64| size % (64 << 10) == 0 && size <= 1 << 30;
                self.hmb = bytes(fits, "a multiple of 64K up to 1G")?;
            }
            "cmb" => self.cmb = bytes(fits_own, OWN_TEXT)?,
            "pmr" => self.pmr = bytes(fits_own, OWN_TEXT)?,
            "boot-partitions" => {
                let fits = |size: u64| size % boot::UNIT == 0 && size <= boot::LARGEST;
                self.boot_partitions = bytes(fits, "a multiple of 128K up to 16M")?;
            }
            "mpsmin" => {
                let fits = |size: u64| size.is_power_of_two() && (4096..=128 << 20).contains(&size);
                self.mpsmin = bytes(fits, "a power of two from 4K to 128M")? as u32;
            }
            "faults" if cfg!(not(feature = "fault-files")) => {
                return Err(bad("the program was built without the feature `fault-files` of upcie-nvme"));
            }
            "faults" if value.is_empty() => return Err(bad("the path is missing")),
            "faults" => self.faults = Some(value.into()),
            "serial" => {
                let fits =
                    (1..=20).contains(&value.len()) && value.bytes().all(|c| (b' '..=b'~').contains(&c));
                self.serial =
                    fits.then(|| value.into()).ok_or_else(|| bad("1 to 20 printable ASCII characters"))?;
            }
            _ if self.zones.set(key, value)?
                || self.placement.set(key, value)?
                || self.keys.set(key, value)?
                || self.atomic.set(key, value)?
                || self.functions.set(key, value)? => {}
            _ => return Err(Error::UnknownOption { key: key.into() }),
        }
        Ok(())
    }
}

/// Returns `true` for a size of the controller's own memory.
fn fits_own(size: u64) -> bool {
    size == 0 || size.is_power_of_two() && OWN_SIZES.contains(&size)
}

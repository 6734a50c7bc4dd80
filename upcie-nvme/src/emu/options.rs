//! The options of an embedded controller: `key=value,…`, as `emu:` addresses and `nvme-emu` take them.

use super::{Error, units};
use std::{fmt, path::PathBuf, str::FromStr, time::Duration};

/// The options, one a line, for messages and help.
pub const KEYS: &str = "  \
  size=BYTES        of each namespace (K, M, G, T): makes the file of file= if there is none
  lba=512|4096      block size; lba=512+4096: one for each namespace
  namespaces=N      1 to 1024
  file=PATH         keep the data in this file (a comma in its name: two)
  ro=true           write nothing: the namespaces are write protected
  null=true         move no data
  populate=true     take all memory for the data before the start
  latency=TIME      complete each I/O command no sooner than this (50us, 1ms)
  mdts=BYTES        the most bytes of a command, a power of two from 8K to 1G
  queues=N          I/O queues of each kind, 0 (none are granted) to 1024
  depth=N           the most entries of an I/O queue, 1 (no use) to 65536
  vectors=N         MSI-X vectors, 0 to 2048
  msi=N             MSI messages: 0, or a power of two up to 32
  intx=true         have an interrupt pin
  wrr=true          have weighted round robin
  css=N             the command sets (CAP.CSS), 0 to 255 or hexadecimal (0x80)
  mpsmin=BYTES      the least memory page, a power of two from 4K to 64K
  serial=TEXT       1 to 20 printable ASCII characters";

/// Limit of `queues=`: the BAR of doorbells then has 4 MiB.
const MAX_QUEUES: u16 = 1024;
/// Limit of `size=`, 1 PiB: with the most namespaces the sum still fits a file offset.
const MAX_SIZE: u64 = 1 << 50;
/// The most vectors that MSI-X has.
const MAX_VECTORS: u16 = 2048;
const MAX_LATENCY: Duration = Duration::from_secs(60);
/// The most messages that MSI has.
const MAX_MSI: u32 = 32;

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
    /// `namespaces=`: the number of namespaces, 1 to 1024, numbered from 1. Default 1.
    pub namespaces: u32,
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
    /// `css=`: the command sets that CAP.CSS reports, decimal or hexadecimal. Default 1, the NVM command set.
    pub css: u8,
    /// `mpsmin=`: the least bytes of a memory page, a power of two from 4096 to 65536. Default 4096.
    pub mpsmin: u32,
    /// `serial=`: the serial number, 1 to 20 printable ASCII characters. Default `EMU0`.
    pub serial: String,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            size: None,
            lba: vec![512],
            namespaces: 1,
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
            css: 1,
            mpsmin: 4096,
            serial: "EMU0".into(),
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
            "namespaces" => self.namespaces = number(value, 1, 1024).ok_or_else(|| bad("1 to 1024"))?,
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
                let size = units::parse_bytes(value).map_err(|reason| bad(&reason))?;
                if !size.is_power_of_two() || !(8192..=1 << 30).contains(&size) {
                    return Err(bad("a power of two from 8K to 1G"));
                }
                self.mdts = size as u32;
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
            "css" => {
                let parsed = match value.strip_prefix("0x") {
                    Some(digits) => u8::from_str_radix(digits, 16),
                    None => value.parse(),
                };
                self.css = parsed.map_err(|_| bad("0 to 255, or 0x and hexadecimal digits"))?;
            }
            "mpsmin" => {
                let size = units::parse_bytes(value).map_err(|reason| bad(&reason))?;
                if !size.is_power_of_two() || !(4096..=1 << 16).contains(&size) {
                    return Err(bad("a power of two from 4K to 64K"));
                }
                self.mpsmin = size as u32;
            }
            "serial" => {
                let fits =
                    (1..=20).contains(&value.len()) && value.bytes().all(|c| (b' '..=b'~').contains(&c));
                self.serial =
                    fits.then(|| value.into()).ok_or_else(|| bad("1 to 20 printable ASCII characters"))?;
            }
            _ => return Err(Error::UnknownOption { key: key.into() }),
        }
        Ok(())
    }

    /// Checks that the options are compatible, as [`Emulator::new`](super::Emulator::new) does.
    ///
    /// # Errors
    /// [`Error::Option`]: names the option that is not compatible with another.
    pub fn check(&self) -> Result<(), Error> {
        let bad = |option: String, reason: String| Err(Error::Option { option, reason });
        if self.null && self.file.is_some() {
            return bad("null=true".into(), "it can't go with file=: nothing would be written".into());
        }
        if self.populate == Some(true) && (self.null || self.file.is_some()) {
            return bad(
                "populate=true".into(),
                "it can't go with file= or null=true, which take no memory".into(),
            );
        }
        if self.lba.len() > self.namespaces as usize {
            let lba: Vec<_> = self.lba.iter().map(u32::to_string).collect();
            let reason = format!("more block sizes than namespaces={}", self.namespaces);
            return bad(format!("lba={}", lba.join("+")), reason);
        }
        if self.mdts < 2 * self.mpsmin {
            let reason = format!("two memory pages of mpsmin={} at least", Bytes(self.mpsmin.into()));
            return bad(format!("mdts={}", Bytes(self.mdts.into())), reason);
        }
        let block = self.largest_block();
        match self.size {
            Some(size) if size % block != 0 => bad(
                format!("size={}", Bytes(size)),
                format!("it is not a multiple of the block size, {block} bytes"),
            ),
            _ => Ok(()),
        }
    }

    /// Returns the largest block size of a namespace, in bytes.
    pub(super) fn largest_block(&self) -> u64 {
        self.lba.iter().copied().max().unwrap_or(512).into()
    }

    /// Returns the number of interrupt vectors that a queue may name, of the kind that has the most.
    pub(super) fn interrupts(&self) -> u16 {
        self.vectors.max(self.msi).max(self.intx.into())
    }

    /// Returns the block size of a namespace, counted from 0.
    pub(super) fn block_size(&self, index: u32) -> u32 {
        let last = self.lba.last().copied().unwrap_or(512);
        self.lba.get(index as usize).copied().unwrap_or(last)
    }
}

/// Returns the address of a controller with these options.
pub(crate) fn name(options: &Options) -> String {
    match options.to_string() {
        text if text.is_empty() => "emu".into(),
        text => format!("emu:{text}"),
    }
}

impl FromStr for Options {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let mut options = Self::default();
        let mut given = Vec::new();
        for pair in pairs(text) {
            let Some((key, value)) = pair.split_once('=') else {
                return Err(Error::Option { option: pair, reason: "`key=value` is needed".into() });
            };
            if given.iter().any(|known| known == key) {
                let reason = format!("{key}= is given twice");
                return Err(Error::Option { option: pair, reason });
            }
            options.set(key, value)?;
            given.push(key.to_owned());
        }
        options.check()?;
        Ok(options)
    }
}

impl fmt::Display for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let default = Self::default();
        let mut comma = "";
        let mut put = |given: bool, key: &str, value: &dyn fmt::Display| {
            if given {
                write!(f, "{}{key}={value}", std::mem::replace(&mut comma, ","))?;
            }
            Ok(())
        };
        let lba: Vec<_> = self.lba.iter().map(u32::to_string).collect();
        if let Some(size) = self.size {
            put(true, "size", &Bytes(size))?;
        }
        put(self.lba != default.lba, "lba", &lba.join("+"))?;
        put(self.namespaces != default.namespaces, "namespaces", &self.namespaces)?;
        if let Some(path) = &self.file {
            put(true, "file", &path.display().to_string().replace(',', ",,"))?;
        }
        put(self.ro, "ro", &self.ro)?;
        put(self.null, "null", &self.null)?;
        put(self.populate.is_some(), "populate", &self.populate.unwrap_or_default())?;
        put(self.latency != default.latency, "latency", &Time(self.latency))?;
        put(self.mdts != default.mdts, "mdts", &Bytes(self.mdts.into()))?;
        put(self.queues != default.queues, "queues", &self.queues)?;
        put(self.depth != default.depth, "depth", &self.depth)?;
        put(self.vectors != default.vectors, "vectors", &self.vectors)?;
        put(self.msi != default.msi, "msi", &self.msi)?;
        put(self.intx, "intx", &self.intx)?;
        put(self.wrr, "wrr", &self.wrr)?;
        put(self.css != default.css, "css", &format_args!("{:#x}", self.css))?;
        put(self.mpsmin != default.mpsmin, "mpsmin", &Bytes(self.mpsmin.into()))?;
        put(self.serial != default.serial, "serial", &self.serial.replace(',', ",,"))
    }
}

/// Splits `key=value,…` into pairs; two commas stand for one comma of a value.
fn pairs(text: &str) -> Vec<String> {
    let mut pairs = vec![String::new()];
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        match (letter, pairs.last_mut()) {
            (',', Some(last)) if letters.next_if_eq(&',').is_some() => last.push(','),
            (',', _) => pairs.push(String::new()),
            (letter, Some(last)) => last.push(letter),
            (_, None) => {}
        }
    }
    pairs.retain(|pair| !pair.is_empty());
    pairs
}

fn number(text: &str, min: u32, max: u32) -> Option<u32> {
    text.parse().ok().filter(|number| (min..=max).contains(number))
}

struct Bytes(u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.trailing_zeros() {
            40.. => write!(f, "{}T", self.0 >> 40),
            30.. => write!(f, "{}G", self.0 >> 30),
            20.. => write!(f, "{}M", self.0 >> 20),
            10.. => write!(f, "{}K", self.0 >> 10),
            _ => write!(f, "{}", self.0),
        }
    }
}

struct Time(Duration);

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ns = self.0.as_nanos();
        match () {
            () if ns % 1_000_000_000 == 0 => write!(f, "{}s", ns / 1_000_000_000),
            () if ns % 1_000_000 == 0 => write!(f, "{}ms", ns / 1_000_000),
            () if ns % 1_000 == 0 => write!(f, "{}us", ns / 1_000),
            () => write!(f, "{ns}ns"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_print_as_they_were_parsed() {
        for text in [
            "",
            "size=64M",
            "size=4K,lba=512+4096,namespaces=3,file=/tmp/x y.img,latency=50us,mdts=4M,queues=3,depth=2,vectors=1,serial=a-1",
            "null=true,latency=1500ns",
            "size=1052160,file=gpt.img,ro=true",
            "file=a,,b=c,,,,.img,serial=x,,y",
            "vectors=0,msi=32,intx=true",
            "queues=0,depth=1,css=0x80,mpsmin=64K",
        ] {
            assert_eq!(text.parse::<Options>().unwrap().to_string(), text);
        }
        assert_eq!("size=1GiB,lba=4k,latency=0".parse::<Options>().unwrap().to_string(), "size=1G,lba=4096");
        let named = "file=a,,b.img,,,ro=true".parse::<Options>().unwrap();
        assert_eq!((named.file, named.ro), (Some("a,b.img,".into()), true));
        let fractions = "size=1.5G,latency=0.5ms".parse::<Options>().unwrap();
        assert_eq!(fractions.to_string(), "size=1536M,latency=500us");
    }

    /// Tools finding B (emu errors): an error about a value is about that option only.
    #[test]
    fn a_wrong_value_lists_the_values_of_its_key() {
        for (text, part) in [
            ("size", "`key=value` is needed"),
            ("size=", "is not a size"),
            ("size=1000", "block size, 512"),
            ("size=1536,lba=4096", "block size, 4096"),
            ("size=99999999999T", "too large"),
            ("size=2000T", "1024T"),
            ("lba=1024", "512 and 4096"),
            ("lba=512+", "512 and 4096"),
            ("lba=512+4096", "namespaces=1"),
            ("lba=512,lba=4096", "given twice"),
            ("namespaces=0", "1 to 1024"),
            ("file=", "path"),
            ("null=1", "true or false"),
            ("ro=yes", "true or false"),
            ("latency=5", "5us, 5ms or 5s"),
            ("latency=61s", "at most 60s"),
            ("latency=99999999999999999999s", "not a time"),
            ("mdts=5000", "power of two"),
            ("mdts=4K", "8K to 1G"),
            ("queues=1025", "0 to 1024"),
            ("depth=0", "1 to 65536"),
            ("depth=65537", "1 to 65536"),
            ("css=256", "0 to 255"),
            ("mpsmin=2K", "4K to 64K"),
            ("mdts=64K,mpsmin=64K", "two memory pages"),
            ("vectors=4096", "0 to 2048"),
            ("msi=3", "power of two up to 32"),
            ("msi=64", "power of two up to 32"),
            ("intx=1", "true or false"),
            ("serial=", "1 to 20"),
            ("serial=123456789012345678901", "1 to 20"),
            ("null=true,file=/x", "file="),
        ] {
            let error = text.parse::<Options>().unwrap_err().to_string();
            assert!(error.contains(part) && error.lines().count() == 1, "{text}: {error}");
            let key = text.split(['=', ',']).next().unwrap();
            assert!(error.contains(key), "{text}: {error}");
        }
    }

    #[test]
    fn an_unknown_option_lists_all_options() {
        let error = "colour=red".parse::<Options>().unwrap_err().to_string();
        assert!(error.contains("\"colour\""), "{error}");
        for key in [
            "size",
            "lba",
            "namespaces",
            "file",
            "ro",
            "null",
            "latency",
            "mdts",
            "queues",
            "depth",
            "vectors",
            "msi",
            "intx",
            "wrr",
            "css",
            "mpsmin",
            "serial",
        ] {
            assert!(
                error.lines().any(|line| line.trim_start().starts_with(&format!("{key}="))),
                "{key}: {error}"
            );
        }
    }
}

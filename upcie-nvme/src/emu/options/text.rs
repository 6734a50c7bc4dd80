//! The text of options: `key=value,…`.

use super::{
    super::{
        Error,
        units::{Bytes, Time},
    },
    Options, access,
};
use std::{fmt, str::FromStr};

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
        let (ms, pi): (Vec<_>, Vec<_>) =
            (self.ms.iter().map(u16::to_string).collect(), self.pi.iter().map(u8::to_string).collect());
        put(self.ms != default.ms, "ms", &ms.join("+"))?;
        put(self.pi != default.pi, "pi", &pi.join("+"))?;
        put(self.extended, "extended", &self.extended)?;
        put(self.pi_first, "pi-first", &self.pi_first)?;
        put(self.guard != default.guard, "guard", &self.guard)?;
        put(self.sts != if self.guard == 32 { 16 } else { 0 }, "sts", &self.sts)?;
        put(self.namespaces != default.namespaces, "namespaces", &self.namespaces)?;
        if let Some(nn) = self.nn {
            put(true, "nn", &nn)?;
        }
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
        put(self.dbbuf, "dbbuf", &self.dbbuf)?;
        put(self.version != default.version, "version", &self.version)?;
        put(self.ana.is_some(), "ana", &self.ana.map_or("", access::text))?;
        put(self.css != default.css, "css", &format_args!("{:#x}", self.css))?;
        put(self.sgl != default.sgl, "sgl", &self.sgl)?;
        put(self.prps != 0, "prps", &self.prps)?;
        put(self.hmb != default.hmb, "hmb", &Bytes(self.hmb))?;
        put(self.cmb != 0, "cmb", &Bytes(self.cmb))?;
        put(self.pmr != 0, "pmr", &Bytes(self.pmr))?;
        put(self.boot_partitions != 0, "boot-partitions", &Bytes(self.boot_partitions))?;
        let more = self.zones.text().into_iter().chain(self.placement.text()).chain(self.keys.text());
        for (key, value) in more.chain(self.functions.text()).chain(self.atomic.text()) {
            put(true, key, &value)?;
        }
        put(self.mpsmin != default.mpsmin, "mpsmin", &Bytes(self.mpsmin.into()))?;
        if let Some(path) = &self.faults {
            put(true, "faults", &path.display().to_string().replace(',', ",,"))?;
        }
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

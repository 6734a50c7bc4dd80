//! The options of zoned namespaces.

use super::super::{
    Error,
    units::{self, Bytes, number},
};
use super::each;
use std::fmt;

/// The unit of zones in bytes: a multiple of every block size.
const UNIT: u64 = 4096;
/// The most zones of a namespace.
const MOST: u64 = 1 << 20;
/// The unit of descriptor extensions in bytes.
pub(in super::super) const EXTENSION_UNIT: u64 = 64;
/// The most bytes that the extensions of a namespace's zones take.
const MOST_EXTENSIONS: u64 = 1 << 30;
/// The granularity of random write areas in bytes.
pub(in super::super) const GRANULARITY: u64 = 4096;

/// The options of zoned namespaces, all of which have the same zones.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub struct ZoneOptions {
    /// `zoned=`: which of the namespaces have zones, in turn; the last one applies to all further ones. Default `false`.
    pub zoned: Vec<bool>,
    /// `zone-size=`: bytes of a zone, a multiple of 4096. Default 16 MiB.
    pub size: u64,
    /// `zone-capacity=`: bytes of a zone that can be written, a multiple of 4096. Default: all of it.
    pub capacity: Option<u64>,
    /// `max-open=`: the most open zones. Default: no limit.
    pub max_open: Option<u32>,
    /// `max-active=`: the most active zones. Default: no limit.
    pub max_active: Option<u32>,
    /// `zasl=`: the most bytes of a Zone Append, a power of two from 4096 on. Default: as `mdts=`.
    pub append: Option<u32>,
    /// `zrwa=`: bytes of a random write area, a multiple of 4096 up to 16 MiB. Default 0: zones have none.
    pub random_write_area: u64,
    /// `zrwas=`: the most zones with a random write area. Default 16.
    pub random_write_areas: u32,
    /// `zde=`: bytes of a zone's descriptor extension, a multiple of 64 up to 16320. Default 0: zones have none.
    pub descriptor_extension: u32,
    /// `cross-zone-reads=true`: a read may cross the boundary of two zones.
    pub cross_reads: bool,
    /// `read-only-zones=`: the number of zones at the end of a namespace that are read-only. Default 0.
    pub read_only: u32,
}

impl Default for ZoneOptions {
    fn default() -> Self {
        Self {
            zoned: vec![false],
            size: 16 << 20,
            capacity: None,
            max_open: None,
            max_active: None,
            append: None,
            random_write_area: 0,
            random_write_areas: 16,
            descriptor_extension: 0,
            cross_reads: false,
            read_only: 0,
        }
    }
}

impl ZoneOptions {
    /// Returns `true` if any namespace has zones.
    pub fn any(&self) -> bool {
        self.zoned.contains(&true)
    }

    /// Returns `true` if a namespace, counted from 0, has zones.
    pub(in super::super) fn has(&self, index: u32) -> bool {
        each::of(&self.zoned, index)
    }

    /// Returns the bytes of a zone that can be written.
    pub(in super::super) fn capacity(&self) -> u64 {
        self.capacity.unwrap_or(self.size)
    }

    /// Sets one option from its text; returns `false` for a key that is none of zones.
    pub(super) fn set(&mut self, key: &str, value: &str) -> Result<bool, Error> {
        let bad = |reason: &str| Error::Option { option: format!("{key}={value}"), reason: reason.into() };
        let bytes = || {
            let bytes = units::parse_bytes(value).map_err(|reason| bad(&reason))?;
            if bytes % UNIT == 0 { Ok(bytes) } else { Err(bad("a multiple of 4096 bytes")) }
        };
        let truth = |text: &str| text.parse::<bool>().map_err(|_| bad("true or false"));
        let limit = || number(value, 1, u32::MAX - 1).map(Some).ok_or_else(|| bad("1 or more"));
        match key {
            "zoned" => {
                self.zoned = each::parse(value)
                    .ok_or_else(|| bad("true or false (false+true: one for each namespace)"))?;
            }
            "zone-size" => {
                self.size =
                    Some(bytes()?).filter(|&size| size > 0).ok_or_else(|| bad("4096 bytes at least"))?
            }
            "zone-capacity" => {
                self.capacity =
                    Some(Some(bytes()?).filter(|&size| size > 0).ok_or_else(|| bad("4096 bytes at least"))?);
            }
            "max-open" => self.max_open = limit()?,
            "max-active" => self.max_active = limit()?,
            "zasl" => {
                let size = bytes()?;
                if !size.is_power_of_two() || size > 1 << 30 {
                    return Err(bad("a power of two from 4K to 1G"));
                }
                self.append = Some(size as u32);
            }
            "zrwa" => {
                self.random_write_area =
                    Some(bytes()?).filter(|&size| size <= 16 << 20).ok_or_else(|| bad("up to 16M"))?;
            }
            "zrwas" => self.random_write_areas = number(value, 1, 65536).ok_or_else(|| bad("1 to 65536"))?,
            "zde" => {
                let size = units::parse_bytes(value).map_err(|reason| bad(&reason))?;
                if size % EXTENSION_UNIT != 0 || size > 255 * EXTENSION_UNIT {
                    return Err(bad("a multiple of 64 bytes up to 16320"));
                }
                self.descriptor_extension = size as u32;
            }
            "cross-zone-reads" => self.cross_reads = truth(value)?,
            "read-only-zones" => self.read_only = number(value, 0, 65536).ok_or_else(|| bad("0 to 65536"))?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Checks that the options are compatible with one another and with the namespaces: their number, the bytes of each if
    /// they are given, and a file.
    pub(super) fn check(&self, namespaces: u32, size: Option<u64>, has_file: bool) -> Result<(), Error> {
        let bad = |option: String, reason: String| Err(Error::Option { option, reason });
        if self.zoned.len() > namespaces as usize {
            return bad(format!("zoned={}", self.list()), format!("more than namespaces={namespaces}"));
        }
        if !self.any() {
            return match self.text().iter().find(|(key, ..)| *key != "zoned") {
                Some((key, value)) => bad(format!("{key}={value}"), "it needs zoned=true".into()),
                None => Ok(()),
            };
        }
        if has_file {
            let reason = "it can't go with file=: a file keeps blocks, not the states of zones";
            return bad(format!("zoned={}", self.list()), reason.into());
        }
        let capacity = self.capacity();
        if capacity > self.size {
            return bad(
                format!("zone-capacity={}", Bytes(capacity)),
                format!("above zone-size={}", Bytes(self.size)),
            );
        }
        if self.max_active.is_some_and(|active| self.max_open.is_some_and(|open| open > active)) {
            let open = self.max_open.unwrap_or_default();
            return bad(format!("max-open={open}"), "above max-active=: each open zone is active".into());
        }
        let size = size.unwrap_or(1 << 30);
        if size % self.size != 0 {
            return bad(
                format!("size={}", Bytes(size)),
                format!("no multiple of zone-size={}", Bytes(self.size)),
            );
        }
        if size / self.size > MOST {
            return bad(
                format!("zone-size={}", Bytes(self.size)),
                format!("a namespace has {MOST} zones at most"),
            );
        }
        if size / self.size * u64::from(self.descriptor_extension) > MOST_EXTENSIONS {
            let reason = "the extensions of all zones of a namespace take 1 GiB at most";
            return bad(format!("zde={}", self.descriptor_extension), reason.into());
        }
        if u64::from(self.read_only) > size / self.size {
            return bad(
                format!("read-only-zones={}", self.read_only),
                "more than a namespace has zones".into(),
            );
        }
        Ok(())
    }

    fn list(&self) -> String {
        each::text(&self.zoned)
    }

    /// Returns the options that are not at their default, as text.
    pub(super) fn text(&self) -> Vec<(&'static str, String)> {
        let default = Self::default();
        let mut all = Vec::new();
        let mut put = |given: bool, key: &'static str, value: &dyn fmt::Display| {
            if given {
                all.push((key, value.to_string()));
            }
        };
        put(self.zoned != default.zoned, "zoned", &self.list());
        put(self.size != default.size, "zone-size", &Bytes(self.size));
        put(self.capacity.is_some(), "zone-capacity", &Bytes(self.capacity()));
        put(self.max_open.is_some(), "max-open", &self.max_open.unwrap_or_default());
        put(self.max_active.is_some(), "max-active", &self.max_active.unwrap_or_default());
        put(self.append.is_some(), "zasl", &Bytes(self.append.unwrap_or_default().into()));
        put(self.random_write_area != 0, "zrwa", &Bytes(self.random_write_area));
        put(self.random_write_areas != default.random_write_areas, "zrwas", &self.random_write_areas);
        put(self.descriptor_extension != 0, "zde", &self.descriptor_extension);
        put(self.cross_reads, "cross-zone-reads", &self.cross_reads);
        put(self.read_only != 0, "read-only-zones", &self.read_only);
        all
    }
}

//! The options of key value namespaces.

use super::super::{
    Error,
    units::{self, Bytes, number},
};
use super::{each, zones::ZoneOptions};
use crate::spec::Key;
use std::fmt;

/// The options of key value namespaces, all of which have the same limits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub struct KeyOptions {
    /// `kv=`: which of the namespaces have keys and values in place of blocks, in turn; the last one applies to all further
    /// ones. Default `false`.
    pub kv: Vec<bool>,
    /// `kv-key=`: the most bytes of a key, 1 to 16. Default 16.
    pub max_key: u8,
    /// `kv-value=`: the most bytes of a value, up to 1 GiB. Default: as `mdts=`.
    pub max_value: Option<u32>,
    /// `kv-keys=`: the most keys of a namespace. Default: as many as fit.
    pub most: Option<u32>,
}

impl Default for KeyOptions {
    fn default() -> Self {
        Self { kv: vec![false], max_key: Key::MOST as u8, max_value: None, most: None }
    }
}

impl KeyOptions {
    /// Returns `true` if any namespace has keys.
    pub fn any(&self) -> bool {
        self.kv.contains(&true)
    }

    /// Returns `true` if a namespace, counted from 0, has keys.
    pub(in super::super) fn has(&self, index: u32) -> bool {
        each::of(&self.kv, index)
    }

    /// Sets one option from its text; returns `false` for a key that is none of these.
    pub(super) fn set(&mut self, key: &str, value: &str) -> Result<bool, Error> {
        let bad = |reason: &str| Error::Option { option: format!("{key}={value}"), reason: reason.into() };
        match key {
            "kv" => {
                self.kv = each::parse(value)
                    .ok_or_else(|| bad("true or false (false+true: one for each namespace)"))?;
            }
            "kv-key" => {
                let most = Key::MOST as u32;
                self.max_key = number(value, 1, most).ok_or_else(|| bad("1 to 16 bytes"))? as u8;
            }
            "kv-value" => {
                let size = units::parse_bytes(value).map_err(|reason| bad(&reason))?;
                if !(1..=1 << 30).contains(&size) {
                    return Err(bad("1 byte up to 1G"));
                }
                self.max_value = Some(size as u32);
            }
            "kv-keys" => {
                self.most = Some(number(value, 1, u32::MAX).ok_or_else(|| bad("1 or more"))?);
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Checks that the options are compatible with the number of namespaces, their zones, and `others`: options that may not
    /// be there, with the reason.
    pub(super) fn check(
        &self,
        namespaces: u32,
        zones: &ZoneOptions,
        others: [(bool, &str); 3],
    ) -> Result<(), Error> {
        let bad = |option: String, reason: &str| Err(Error::Option { option, reason: reason.into() });
        let named = format!("kv={}", self.list());
        if self.kv.len() > namespaces as usize {
            return bad(named, &format!("more than namespaces={namespaces}"));
        }
        if !self.any() {
            return match self.text().iter().find(|(key, _)| *key != "kv") {
                Some((key, value)) => bad(format!("{key}={value}"), "it needs kv=true"),
                None => Ok(()),
            };
        }
        if let Some((_, other)) = others.iter().find(|(given, _)| *given) {
            return bad(named, &format!("it can't go with {other}"));
        }
        match (0..namespaces).find(|&index| self.has(index) && zones.has(index)) {
            Some(index) => bad(named, &format!("namespace {} would have zones, too (zoned=)", index + 1)),
            None => Ok(()),
        }
    }

    fn list(&self) -> String {
        each::text(&self.kv)
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
        put(self.kv != default.kv, "kv", &self.list());
        put(self.max_key != default.max_key, "kv-key", &self.max_key);
        put(self.max_value.is_some(), "kv-value", &Bytes(self.max_value.unwrap_or_default().into()));
        put(self.most.is_some(), "kv-keys", &self.most.unwrap_or_default());
        all
    }
}

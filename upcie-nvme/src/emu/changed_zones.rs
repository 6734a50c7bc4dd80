//! Zones that the controller has changed by itself: ZNS, "Changed Zone List".

use crate::spec::ChangedZonesLog;
use std::collections::{BTreeMap, BTreeSet};
use zerocopy::{FromZeros, IntoBytes};

/// The most zones that a list names.
const MOST: usize = 511;
/// The most namespaces with a list: a controller has no more.
const NAMESPACES: usize = 1024;
/// The count of a list of more.
const MORE: u16 = 0xffff;

/// The first blocks of the zones that have changed since a host read the list of their namespace.
#[derive(Debug, Default)]
pub(super) struct ChangedZones(BTreeMap<u32, BTreeSet<u64>>);

impl ChangedZones {
    /// Notes that a zone has changed. Of more than a list names, it says only that there are more.
    pub fn note(&mut self, nsid: u32, zslba: u64) {
        if self.0.len() >= NAMESPACES && !self.0.contains_key(&nsid) {
            return;
        }
        let zones = self.0.entry(nsid).or_default();
        if zones.len() <= MOST {
            zones.insert(zslba);
        }
    }

    /// Forgets the changes of a namespace, whose list was read.
    pub fn forget(&mut self, nsid: u32) {
        self.0.remove(&nsid);
    }

    /// Forgets the changes of namespaces for which `is_kept` is false.
    pub fn retain(&mut self, is_kept: impl Fn(u32) -> bool) {
        self.0.retain(|&nsid, _| is_kept(nsid));
    }

    /// Returns the Changed Zone List log page of a namespace.
    pub fn page(&self, nsid: u32) -> Vec<u8> {
        let mut log = ChangedZonesLog::new_zeroed();
        match self.0.get(&nsid) {
            Some(zones) if zones.len() > MOST => log.count = MORE,
            Some(zones) => {
                log.count = zones.len() as u16;
                log.zones.iter_mut().zip(zones).for_each(|(entry, &zslba)| *entry = zslba);
            }
            None => {}
        }
        log.as_bytes().to_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use zerocopy::FromBytes;

    fn page(zones: &ChangedZones, nsid: u32) -> ChangedZonesLog {
        ChangedZonesLog::read_from_bytes(&zones.page(nsid)).unwrap()
    }

    #[test]
    fn a_list_names_each_zone_once_or_says_that_there_are_more() {
        let mut zones = ChangedZones::default();
        for zslba in (0..511).rev().chain(0..511) {
            zones.note(2, zslba * 8);
        }
        assert_eq!((page(&zones, 1).count, page(&zones, 2).count), (0, 511));
        let named: Vec<u64> = (0..511).map(|zone| zone * 8).collect();
        assert_eq!(page(&zones, 2).changed(), Some(&named[..]));
        zones.note(2, 511 * 8);
        let all = page(&zones, 2);
        assert_eq!((all.count, all.changed(), all.zones), (0xffff, None, [0; 511]));
        zones.forget(2);
        assert_eq!(page(&zones, 2).changed(), Some(&[][..]));
    }
}

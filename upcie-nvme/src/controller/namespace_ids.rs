//! The lists of namespaces: Identify returns them page by page.

use super::{Inner, Limit};
use crate::{
    Error, Result,
    spec::{Cns, Command},
};

/// Ids in a page of a list of namespaces.
pub(crate) const IDS: usize = 1024;
/// The most ids that are kept of a controller that lists ever more.
const MOST: usize = 1 << 20;
/// The last id that another page can follow: Identify refuses FFFFFFFEh and above.
const LAST: u32 = 0xffff_fffd;

/// A list of namespaces: its code, and the name of the command that reads it.
type List = (Cns, &'static str);

const ACTIVE: List = (Cns::ACTIVE_NAMESPACES, "Identify (active namespaces)");
const ALLOCATED: List = (Cns::ALLOCATED_NAMESPACES, "Identify (allocated namespaces)");

impl Inner {
    /// Returns the ids of active namespaces that are greater than `above`, [`IDS`] at most, ascending.
    pub(crate) fn active_above(&self, above: u32, limit: &mut Limit<'_>) -> Result<Vec<u32>> {
        self.listed_above(ACTIVE, above, limit)
    }

    pub(crate) fn active_namespaces(&self, limit: &mut Limit<'_>) -> Result<Vec<u32>> {
        self.listed(ACTIVE, limit)
    }

    pub(crate) fn allocated_namespaces(&self, limit: &mut Limit<'_>) -> Result<Vec<u32>> {
        self.listed(ALLOCATED, limit)
    }

    /// Reads a page of a list.
    fn listed_above(&self, (cns, what): List, above: u32, limit: &mut Limit<'_>) -> Result<Vec<u32>> {
        let page = self.identify_page(&Command::identify(cns, above, 0), what, limit)?;
        let ids = page.chunks_exact(4).map(|id| u32::from_le_bytes([id[0], id[1], id[2], id[3]]));
        let ids: Vec<u32> = ids.take_while(|&id| id != 0).collect();
        if ids.first().is_some_and(|&first| first <= above) || !ids.is_sorted_by(|a, b| a < b) {
            return Err(Error::protocol(self.link.name.to_string(), what, "the list is not ascending"));
        }
        Ok(ids)
    }

    /// Reads a whole list.
    fn listed(&self, list: List, limit: &mut Limit<'_>) -> Result<Vec<u32>> {
        let all = join(self.properties.identify.nn, |above| self.listed_above(list, above, limit))?;
        all.map_err(|reason| Error::protocol(self.link.name.to_string(), list.1, reason))
    }
}

/// Joins the pages of a list: `page` returns the ids above its argument, [`IDS`] at most, ascending. The inner error is the
/// reason why no controller with `nn` namespaces has such a list.
///
/// # Errors
/// That of `page`.
fn join(
    nn: u32,
    mut page: impl FnMut(u32) -> Result<Vec<u32>>,
) -> Result<std::result::Result<Vec<u32>, String>> {
    let mut all: Vec<u32> = Vec::new();
    loop {
        let more = page(all.last().copied().unwrap_or(0))?;
        all.extend(&more);
        // More ids than NN allows: the controller repeats itself.
        if all.len() > (nn as usize).max(IDS) {
            return Ok(Err("the list has more namespaces than the controller supports (NN)".into()));
        }
        if all.len() > MOST {
            return Ok(Err(format!("the list has more than {MOST} namespaces")));
        }
        if more.len() < IDS || all.last() >= Some(&LAST) {
            return Ok(Ok(all));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the page above an id of a list of `ids`.
    fn page(ids: impl Iterator<Item = u32>, above: u32) -> Result<Vec<u32>> {
        Ok(ids.filter(|&id| id > above).take(IDS).collect())
    }

    #[test]
    fn a_list_is_read_to_its_end() {
        for (count, pages) in [(0, 1), (1, 1), (1023, 1), (1024, 2), (1025, 2), (2048, 3), (3000, 3)] {
            let mut asked = 0;
            let all = join(3000, |above| {
                asked += 1;
                page(1..=count, above)
            });
            assert_eq!(all.unwrap().unwrap(), (1..=count).collect::<Vec<_>>());
            assert_eq!(asked, pages, "{count}");
        }
        // The last ids: Identify refuses to go on after FFFFFFFDh.
        let all = join(u32::MAX, |above| page(LAST - 1023..=LAST, above)).unwrap().unwrap();
        assert_eq!((all.len(), all.last()), (1024, Some(&LAST)));
    }

    #[test]
    fn a_list_without_an_end_is_refused() {
        fn endless(above: u32) -> Result<Vec<u32>> {
            Ok((above + 1..=above + 1024).collect())
        }
        assert!(join(4000, endless).unwrap().unwrap_err().contains("NN"));
        assert!(join(u32::MAX, endless).unwrap().unwrap_err().contains("1048576"));
    }

    #[test]
    fn an_error_ends_the_list() {
        let mut pages = 0;
        let failed = join(u32::MAX, |above| {
            pages += 1;
            if pages == 2 { Err(Error::argument("device", "reason")) } else { page(1..=2000, above) }
        });
        assert!(failed.is_err());
    }
}

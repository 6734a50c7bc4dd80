//! Base, "Asymmetric Namespace Access".

use zerocopy::FromBytes;

use super::super::fields::{Field, Value};
use super::super::macros::{named_values, structure};
use super::id::LogPageId;
use super::page::{LogHeader, VariableLog};

named_values! {
    /// Access to the namespaces of a group through this controller.
    AccessState(u8) {
        OPTIMIZED = 0x1, "optimized";
        NON_OPTIMIZED = 0x2, "non-optimized";
        INACCESSIBLE = 0x3, "inaccessible";
        PERSISTENT_LOSS = 0x4, "persistent loss";
        CHANGE = 0xf, "change";
    }
}

structure! {
    /// The header of the Asymmetric Namespace Access page (0Ch). Bit 0 of the log-specific parameter leaves out the
    /// namespaces.
    AccessHeader[16], "Asymmetric Namespace Access" {
        /// Changes of the page since power-on; 0 not reported.
        0 change_count: u64 => number;
        /// Groups in the page.
        8 groups: u16 => number;
        10 reserved10: [u8; 6];
    }
}

structure! {
    /// A group in the Asymmetric Namespace Access page, before its namespaces.
    AccessGroup[32], "ANA Group Descriptor" {
        /// The group (AGID).
        0 group_id: u32 => number;
        /// Namespaces in the group.
        4 namespace_count: u32 => number;
        /// Changes of the group.
        8 change_count: u64 => number;
        /// The [`AccessState`] in bits 3:0; see [`Self::state`].
        16 state_bits: u8 = shown_state;
        17 reserved17: [u8; 15];
    }
}

impl AccessGroup {
    /// Returns the state of the group.
    #[must_use]
    pub const fn state(&self) -> AccessState {
        AccessState(self.state_bits & 0xf)
    }

    fn shown_state(&self) -> Value {
        super::super::fields::show::named(&self.state())
    }
}

/// The Asymmetric Namespace Access page with its groups.
pub type AccessLog = VariableLog<AccessHeader>;

impl VariableLog<AccessHeader> {
    /// Returns each group with its namespaces, as far as the page has them.
    pub fn groups(&self) -> impl Iterator<Item = (AccessGroup, Vec<u32>)> + '_ {
        groups(self.header.groups, &self.rest)
    }
}

fn groups(count: u16, mut rest: &[u8]) -> impl Iterator<Item = (AccessGroup, Vec<u32>)> + '_ {
    (0..count).map_while(move |_| {
        let (group, after) = AccessGroup::read_from_prefix(rest).ok()?;
        let bytes = (group.namespace_count as usize).checked_mul(4)?;
        let (ids, after) = after.split_at_checked(bytes)?;
        rest = after;
        Some((
            group,
            ids.chunks_exact(4).map(|id| u32::from_le_bytes([id[0], id[1], id[2], id[3]])).collect(),
        ))
    })
}

impl LogHeader for AccessHeader {
    const ID: LogPageId = LogPageId::ASYMMETRIC_NAMESPACE_ACCESS;

    fn rest_len(&self, read: &[u8]) -> u64 {
        let mut end = 0_u64;
        for _ in 0..self.groups {
            let at = usize::try_from(end).unwrap_or(usize::MAX);
            end = end.saturating_add(size_of::<AccessGroup>() as u64);
            match read.get(at..).and_then(|bytes| AccessGroup::read_from_prefix(bytes).ok()) {
                Some((group, _)) => end = end.saturating_add(u64::from(group.namespace_count) * 4),
                // This header is to be read next.
                None => break,
            }
        }
        end
    }

    fn rest_fields(&self, rest: &[u8]) -> Vec<Field> {
        let shown = groups(self.groups, rest).map(|(group, namespaces)| {
            let mut fields = super::super::fields::Structure::fields(&group);
            fields.push(Field::new("namespaces", super::super::fields::show::numbers(&namespaces)));
            Value::Fields(fields)
        });
        vec![Field::new("group_descriptors", Value::List(shown.collect()))]
    }
}

#[cfg(test)]
mod tests {
    use super::super::LogPage;
    use super::*;
    use zerocopy::{FromZeros, IntoBytes};

    #[test]
    fn groups_are_found_by_reading_header_after_header() {
        let identify = super::super::super::identify::IdentifyController::new_zeroed();
        let header = AccessHeader { groups: 2, ..FromZeros::new_zeroed() };
        let group = |id, count| AccessGroup {
            group_id: id,
            namespace_count: count,
            state_bits: 0xf1,
            ..FromZeros::new_zeroed()
        };
        let mut page = header.as_bytes().to_vec();
        page.extend(group(7, 2).as_bytes());
        page.extend([1_u32, 9].as_bytes());
        page.extend(group(8, 0).as_bytes());
        let steps = [(0, 16), (16, 48), (48, 88), (88, 88)];
        for (read, needed) in steps {
            assert_eq!(AccessLog::len(&page[..read], &identify), needed, "{read} bytes were read");
        }
        let log = AccessLog::from_page(&page).unwrap();
        let found: Vec<_> = log.groups().map(|(group, ids)| (group.group_id, group.state(), ids)).collect();
        assert_eq!(found, [(7, AccessState::OPTIMIZED, vec![1, 9]), (8, AccessState::OPTIMIZED, vec![])]);
        // A count beyond the page's end ends the list.
        let log = AccessLog::from_page(&page[..50]).unwrap();
        assert_eq!(log.groups().count(), 0);
    }
}

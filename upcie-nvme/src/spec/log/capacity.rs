//! Base, "Media Unit Status" and "Supported Capacity Configuration List". The log-specific identifier of both pages names
//! a domain; 0 is that of the controller.

use zerocopy::FromBytes;

use super::super::fields::{Field, Structure, Value, show};
use super::super::macros::structure;
use super::id::LogPageId;
use super::page::{LogHeader, VariableLog, entries};

/// Walks descriptors of different lengths. The position goes on where the bytes have ended: then it is the least length that
/// the page can have.
struct Walk<'a> {
    bytes: &'a [u8],
    at: u64,
}

impl<'a> Walk<'a> {
    const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// Passes `len` bytes and returns them; `None` if the bytes end before.
    fn take(&mut self, len: u64) -> Option<&'a [u8]> {
        let start = usize::try_from(self.at).ok();
        self.at = self.at.saturating_add(len);
        let end = usize::try_from(self.at).ok();
        self.bytes.get(start?..end?)
    }

    /// Passes a structure and returns it.
    fn read<T: FromBytes>(&mut self) -> Option<T> {
        T::read_from_bytes(self.take(size_of::<T>() as u64)?).ok()
    }

    /// Passes identifiers and returns them.
    fn identifiers(&mut self, count: u16) -> Option<Vec<u16>> {
        Some(entries(self.take(u64::from(count) * 2)?, u64::MAX))
    }

    /// Passes `count` descriptors of `least` bytes or more, and returns those that end within the bytes.
    fn each<T>(&mut self, count: u16, least: u64, mut one: impl FnMut(&mut Self) -> Option<T>) -> Vec<T> {
        let mut all = Vec::new();
        for index in 0..count {
            let Some(descriptor) = one(self) else {
                let missing = u64::from(count - index - 1);
                self.at = self.at.saturating_add(missing * least);
                break;
            };
            all.push(descriptor);
        }
        all
    }
}

structure! {
    /// The header of the Media Unit Status page (10h).
    MediaUnitStatusHeader[16], "Media Unit Status" {
        /// Media units in the page (NMU).
        0 media_units: u16 => number;
        /// Channels that the controller can access; 0 not reported (CCHANS).
        2 channels: u16 => number;
        /// The capacity configuration that was selected; 0 for none (SELC).
        4 selected_configuration: u16 => number;
        6 reserved6: [u8; 10];
    }
}

structure! {
    /// A media unit, 14 bytes, before the identifiers of its channels.
    MediaUnit[14], "Media Unit Status Descriptor" {
        /// The media unit, from 0 on (MUID).
        0 media_unit_id: u16 => number;
        /// The domain; 0 not reported (DID).
        2 domain_id: u16 => number;
        /// The endurance group; 0 for none (ENDGID).
        4 endurance_group_id: u16 => number;
        /// The NVM set; 0 for none (NVMSETID).
        6 nvm_set_id: u16 => number;
        /// Capacity that the endurance group takes, in percent of what it offers; FFFFh is that and more, 0 not reported (CAF).
        8 capacity_adjustment_factor: u16 => unit("%");
        /// Spare capacity left, in percent (AVSP).
        10 available_spare: u8 => unit("%");
        /// Life used by the vendor's estimate, in percent; may be over 100 (PUSED).
        11 percentage_used: u8 => unit("%");
        /// Channels that the media unit is attached to (MUCS).
        12 channels: u8 => number;
        /// Offset of the channels' identifiers from the beginning of the descriptor, in bytes (CIO).
        13 channels_offset: u8 => unit("bytes");
    }
}

/// The Media Unit Status page with its media units.
pub type MediaUnitStatusLog = VariableLog<MediaUnitStatusHeader>;

impl VariableLog<MediaUnitStatusHeader> {
    /// Returns each media unit with the identifiers of its channels, as far as the page has them.
    #[must_use]
    pub fn media_units(&self) -> Vec<(MediaUnit, Vec<u16>)> {
        media_units(self.header.media_units, &mut Walk::new(&self.rest))
    }
}

fn media_units(count: u16, walk: &mut Walk<'_>) -> Vec<(MediaUnit, Vec<u16>)> {
    walk.each(count, size_of::<MediaUnit>() as u64, |walk| {
        let unit: MediaUnit = walk.read()?;
        // Reserved bytes up to the channels.
        walk.take(u64::from(unit.channels_offset).saturating_sub(size_of::<MediaUnit>() as u64))?;
        Some((unit, walk.identifiers(unit.channels.into())?))
    })
}

impl LogHeader for MediaUnitStatusHeader {
    const ID: LogPageId = LogPageId::MEDIA_UNIT_STATUS;

    fn rest_len(&self, read: &[u8]) -> u64 {
        let mut walk = Walk::new(read);
        let _ = media_units(self.media_units, &mut walk);
        walk.at
    }

    fn rest_fields(&self, rest: &[u8]) -> Vec<Field> {
        let shown =
            media_units(self.media_units, &mut Walk::new(rest)).into_iter().map(|(unit, channels)| {
                let mut fields = unit.fields();
                fields.push(Field::new("channel_list", show::numbers(&channels)));
                Value::Fields(fields)
            });
        vec![Field::new("media_unit_list", Value::List(shown.collect()))]
    }
}

structure! {
    /// The header of the Supported Capacity Configuration List page (11h).
    SupportedCapacityHeader[16], "Supported Capacity Configuration List" {
        /// Configurations in the page (SCCN).
        0 configurations: u8 => number;
        1 reserved1: [u8; 15];
    }
}

structure! {
    /// A capacity configuration, 32 bytes, before its endurance groups.
    CapacityConfigurationDescriptor[32], "Capacity Configuration Descriptor" {
        /// The configuration (CCID): Capacity Management selects it by this identifier.
        0 configuration_id: u16 => number;
        /// The domain; 0 not reported (DID).
        2 domain_id: u16 => number;
        /// Endurance groups of the configuration (EGCN).
        4 endurance_groups: u16 => number;
        6 reserved6: [u8; 26];
    }
}

structure! {
    /// An endurance group of a capacity configuration, 80 bytes, before its NVM sets and channels.
    EnduranceGroupDescriptor[80], "Endurance Group Configuration Descriptor" {
        /// The endurance group (ENDGID).
        0 endurance_group_id: u16 => number;
        /// Capacity that the group takes, in percent of what it offers; FFFFh is that and more, 0 not reported (CADJF).
        2 capacity_adjustment_factor: u16 => unit("%");
        4 reserved4: [u8; 12];
        /// Capacity of the group, bytes, little endian; 0 not reported (TEGCAP).
        16 total_capacity: [u8; 16] => unit("bytes");
        /// Spare capacity of the group, bytes, little endian; 0 not reported (SEGCAP).
        32 spare_capacity: [u8; 16] => unit("bytes");
        /// Data that can be written over the group's life, in 10^9 bytes, little endian; 0 not reported (EE).
        48 endurance_estimate: [u8; 16] => unit("× 10^9 bytes");
        64 reserved64: [u8; 16];
    }
}

structure! {
    /// A media unit of a channel, 8 bytes, before bytes that this revision does not define.
    MediaUnitConfiguration[8], "Media Unit Configuration Descriptor" {
        /// The media unit (MUID).
        0 media_unit_id: u16 => number;
        2 reserved2: [u8; 4];
        /// Bytes after the descriptor; 0 in this revision (MUDL).
        6 length: u16 => unit("bytes");
    }
}

/// A capacity configuration with its endurance groups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CapacityConfiguration {
    /// The identifiers, and the number of endurance groups.
    pub descriptor: CapacityConfigurationDescriptor,
    /// The endurance groups.
    pub groups: Vec<EnduranceGroupConfiguration>,
}

/// An endurance group of a capacity configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnduranceGroupConfiguration {
    /// The identifier and the capacity.
    pub descriptor: EnduranceGroupDescriptor,
    /// The NVM sets of the group.
    pub nvm_sets: Vec<u16>,
    /// The channels of the group.
    pub channels: Vec<ChannelConfiguration>,
}

/// A channel of an endurance group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChannelConfiguration {
    /// The channel; FFFFh: not specified (CHID).
    pub channel_id: u16,
    /// The media units that are attached to the channel.
    pub media_units: Vec<u16>,
}

/// The Supported Capacity Configuration List page with its configurations.
pub type SupportedCapacityLog = VariableLog<SupportedCapacityHeader>;

impl VariableLog<SupportedCapacityHeader> {
    /// Returns the configurations, as far as the page has them.
    #[must_use]
    pub fn configurations(&self) -> Vec<CapacityConfiguration> {
        configurations(self.header.configurations, &mut Walk::new(&self.rest))
    }
}

/// Bytes of an endurance group without NVM sets and channels: the descriptor, and both numbers.
const LEAST_GROUP: u64 = size_of::<EnduranceGroupDescriptor>() as u64 + 4;
/// Bytes of a channel without media units: its identifier, and their number.
const LEAST_CHANNEL: u64 = 4;

fn configurations(count: u8, walk: &mut Walk<'_>) -> Vec<CapacityConfiguration> {
    walk.each(count.into(), size_of::<CapacityConfigurationDescriptor>() as u64, |walk| {
        let descriptor: CapacityConfigurationDescriptor = walk.read()?;
        let groups = walk.each(descriptor.endurance_groups, LEAST_GROUP, group);
        let is_whole = groups.len() == usize::from(descriptor.endurance_groups);
        is_whole.then_some(CapacityConfiguration { descriptor, groups })
    })
}

fn group(walk: &mut Walk<'_>) -> Option<EnduranceGroupConfiguration> {
    let descriptor: EnduranceGroupDescriptor = walk.read()?;
    let sets: u16 = walk.read()?;
    let nvm_sets = walk.identifiers(sets)?;
    let count: u16 = walk.read()?;
    let channels = walk.each(count, LEAST_CHANNEL, channel);
    let is_whole = channels.len() == usize::from(count);
    is_whole.then_some(EnduranceGroupConfiguration { descriptor, nvm_sets, channels })
}

fn channel(walk: &mut Walk<'_>) -> Option<ChannelConfiguration> {
    let [channel_id, count]: [u16; 2] = walk.read()?;
    let media_units = walk.each(count, size_of::<MediaUnitConfiguration>() as u64, |walk| {
        let unit: MediaUnitConfiguration = walk.read()?;
        walk.take(unit.length.into())?;
        Some(unit.media_unit_id)
    });
    let is_whole = media_units.len() == usize::from(count);
    is_whole.then_some(ChannelConfiguration { channel_id, media_units })
}

impl CapacityConfiguration {
    fn shown(&self) -> Value {
        let mut fields = self.descriptor.fields();
        let groups = self.groups.iter().map(EnduranceGroupConfiguration::shown);
        fields.push(Field::new("group_list", Value::List(groups.collect())));
        Value::Fields(fields)
    }
}

impl EnduranceGroupConfiguration {
    fn shown(&self) -> Value {
        let mut fields = self.descriptor.fields();
        fields.push(Field::new("nvm_sets", show::numbers(&self.nvm_sets)));
        let channels = self.channels.iter().map(|channel| {
            Value::Fields(vec![
                Field::new("channel_id", show::number(&channel.channel_id)),
                Field::new("media_units", show::numbers(&channel.media_units)),
            ])
        });
        fields.push(Field::new("channels", Value::List(channels.collect())));
        Value::Fields(fields)
    }
}

impl LogHeader for SupportedCapacityHeader {
    const ID: LogPageId = LogPageId::SUPPORTED_CAPACITY_CONFIGURATIONS;

    fn rest_len(&self, read: &[u8]) -> u64 {
        let mut walk = Walk::new(read);
        let _ = configurations(self.configurations, &mut walk);
        walk.at
    }

    fn rest_fields(&self, rest: &[u8]) -> Vec<Field> {
        let all = configurations(self.configurations, &mut Walk::new(rest));
        let shown = all.iter().map(CapacityConfiguration::shown);
        vec![Field::new("configuration_list", Value::List(shown.collect()))]
    }
}

#[cfg(test)]
mod tests {
    use super::super::LogPage;
    use super::*;
    use crate::spec::IdentifyController;
    use zerocopy::FromZeros;

    /// Reads a page as the driver does: as many bytes as the page says that it has, by those that were read.
    fn read<L: LogPage>(page: &[u8]) -> (L, usize) {
        let identify = IdentifyController::new_zeroed();
        let (mut have, mut reads) = (0, 0);
        loop {
            let wanted = L::len(&page[..have], &identify) as usize;
            if wanted <= have {
                return (L::from_page(&page[..have]).unwrap(), reads);
            }
            assert!(wanted <= page.len(), "{wanted} bytes of {}", page.len());
            (have, reads) = (wanted, reads + 1);
        }
    }

    fn page(words: &[(usize, u16)], len: usize) -> Vec<u8> {
        let mut page = vec![0; len];
        for &(at, word) in words {
            page[at..at + 2].copy_from_slice(&word.to_le_bytes());
        }
        page
    }

    #[test]
    fn media_units_have_different_lengths() {
        // Three units: two channels, none, one.
        let words = [
            (0, 3),
            (2, 9),
            (4, 7),
            (16, 0),
            (22, 5),
            (28, 2 | 16 << 8),
            (32, 3),
            (34, 4),
            (36, 1),
            (48, 16 << 8),
            (52, 2),
            (64, 1 | 32 << 8),
            (84, 6),
        ];
        let (log, reads) = read::<MediaUnitStatusLog>(&page(&words, 86));
        assert_eq!((log.header.channels, log.header.selected_configuration), (9, 7));
        let units: Vec<_> =
            log.media_units().into_iter().map(|(unit, channels)| (unit.media_unit_id, channels)).collect();
        assert_eq!(units, [(0, vec![3, 4]), (1, vec![]), (2, vec![6])]);
        assert_eq!(log.media_units()[0].0.nvm_set_id, 5);
        assert!(reads < 6, "{reads} reads");
        let text = log.to_string();
        assert!(text.contains("channel list: 3, 4"), "{text}");
    }

    #[test]
    fn configurations_are_read_to_their_last_media_unit() {
        let words = [
            // Two configurations; the first has a group with NVM sets 5 and 6 and two channels, the second has none.
            (0, 2),
            (16, 1),
            (18, 4),
            (20, 1),
            (48, 8),
            (50, 150),
            (64, 1000),
            (128, 2),
            (130, 5),
            (132, 6),
            (134, 2),
            // Channel 7 with a media unit, and one that has two bytes more than this revision defines.
            (136, 7),
            (138, 2),
            (140, 10),
            (148, 11),
            (154, 2),
            // Channel 8 with none.
            (158, 8),
            (162, 2),
        ];
        let whole = page(&words, 194);
        let (log, reads) = read::<SupportedCapacityLog>(&whole);
        let all = log.configurations();
        assert_eq!(all.iter().map(|one| one.descriptor.configuration_id).collect::<Vec<_>>(), [1, 2]);
        let group = &all[0].groups[0];
        assert_eq!((group.descriptor.endurance_group_id, &group.nvm_sets[..]), (8, &[5, 6][..]));
        assert_eq!(group.descriptor.total_capacity[..2], 1000_u16.to_le_bytes());
        let channels: Vec<_> =
            group.channels.iter().map(|channel| (channel.channel_id, channel.media_units.clone())).collect();
        assert_eq!(channels, [(7, vec![10, 11]), (8, vec![])]);
        assert!(all[1].groups.is_empty() && reads < 12, "{reads} reads");
        // A page that ends early has the configurations before that.
        for len in 16..194 {
            let part = SupportedCapacityLog::from_page(&whole[..len]).unwrap();
            assert_eq!(part.configurations().len(), usize::from(len >= 162), "{len}");
            assert!(SupportedCapacityLog::len(&whole[..len], &IdentifyController::new_zeroed()) > len as u64);
        }
    }
}

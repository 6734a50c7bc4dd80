//! Identify data of key value namespaces: KV, "I/O Command Set specific Identify Namespace data structure". There is none of
//! the controller (CNS 06h): its page is zeros.

use super::super::key_value::Key;
use super::super::macros::{bits, structure};
use super::data::identify_data;
use super::{Cns, Csi};

bits! {
    /// Additional options of a key value format.
    KeyValueFormatOptions(u8), "Additional Format Options" {
        /// The performance beside that of the other formats (RP).
        relative_performance: u8[2] => names(&[(0, "best"), (1, "better"), (2, "good"), (3, "degraded")]);
        __: u8[6];
    }
}

structure! {
    /// The limits of a key value format, 16 bytes.
    KeyValueFormat[16], "KV Format" {
        /// The longest key, 16 at most.
        0 max_key_length: u16 => unit("bytes");
        2 reserved2: u8;
        /// Additional options.
        3 options: KeyValueFormatOptions => fields;
        /// The longest value.
        4 max_value_length: u32 => unit("bytes");
        /// The most keys of the namespace; 0: no number is given.
        8 max_keys: u32 => number;
        12 reserved12: [u8; 4];
    }
}

structure! {
    /// I/O Command Set specific Identify Namespace of the key value command set (CNS 05h, CSI 01h).
    KeyValueNamespace[4096], "I/O Command Set specific Identify Namespace (Key Value)" {
        /// The size of the namespace in bytes, for keys and values (NSZE).
        0 size: u64 => unit("bytes");
        8 reserved8: [u8; 8];
        /// The bytes of it that keys and values take (NUSE).
        16 utilization: u64 => unit("bytes");
        /// Features: bit 3 identifiers are never used again (NSFEAT).
        24 features: u8 => hex;
        /// Formats, 0's based (NKVF).
        25 format_count: u8 => zeros_based;
        /// Multi-path and sharing: bit 0 the namespace may be attached to several controllers (NMIC).
        26 multi_path_and_sharing: u8 => hex;
        /// Reservation capabilities (RESCAP).
        27 reservation_capabilities: u8 => hex;
        /// Format progress: bit 7 supported, bits 6:0 percent that remain (FPI).
        28 format_progress: u8 => hex;
        29 reserved29: [u8; 3];
        /// Values of multiples of so many bytes are best; 0 not reported (NOVG).
        32 optimal_value_granularity: u32 => unit("bytes");
        /// ANA group (ANAGRPID).
        36 ana_group_id: u32 => number;
        40 reserved40: [u8; 3];
        /// Attributes: bit 0 write protected (NSATTR).
        43 attributes: u8 => hex;
        /// NVM set (NVMSETID).
        44 nvm_set_id: u16 => number;
        /// Endurance group (ENDGID).
        46 endurance_group_id: u16 => number;
        /// Namespace globally unique identifier (NGUID).
        48 nguid: [u8; 16] => bytes;
        /// IEEE extended unique identifier (EUI64).
        64 eui64: [u8; 8] => bytes;
        /// The formats (KVF0 to KVF15).
        72 formats: [KeyValueFormat; 16] = shown_formats;
        328 reserved328: [u8; 3512];
        /// Vendor specific.
        3840 vendor_specific: [u8; 256] => bytes;
    }
}

impl KeyValueNamespace {
    /// Returns the formats that the namespace supports. The data does not say which one it has.
    #[must_use]
    pub fn formats(&self) -> &[KeyValueFormat] {
        &self.formats[..self.formats.len().min(usize::from(self.format_count) + 1)]
    }

    /// Returns the longest key of any format, in bytes: 16 at most, 0 if no format is available.
    #[must_use]
    pub fn max_key_length(&self) -> usize {
        let longest = self.formats().iter().map(|format| format.max_key_length).max();
        usize::from(longest.unwrap_or(0)).min(Key::MOST)
    }

    /// Returns the longest value of any format, in bytes.
    #[must_use]
    pub fn max_value_length(&self) -> u32 {
        self.formats().iter().map(|format| format.max_value_length).max().unwrap_or(0)
    }

    fn shown_formats(&self) -> super::super::fields::Value {
        super::super::fields::show::each(self.formats())
    }
}

identify_data! {
    KeyValueNamespace: COMMAND_SET_NAMESPACE, csi = KEY_VALUE [namespace];
}

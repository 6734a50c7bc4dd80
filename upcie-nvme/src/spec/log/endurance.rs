//! Base, "Endurance Group Information", "Endurance Group Event Aggregate", "Predictable Latency Per NVM Set" and
//! "Predictable Latency Event Aggregate".

use super::super::fields::{Field, Value, show};
use super::super::identify::IdentifyController;
use super::super::macros::{bits, structure};
use super::id::LogPageId;
use super::page::{LogHeader, VariableLog, entries, fixed_pages};

bits! {
    /// Critical warnings of an endurance group.
    EnduranceGroupWarning(u8), "Critical Warning" {
        /// The spare capacity fell below its threshold.
        available_spare_below_threshold: bool[1] => flag;
        __: bool[1];
        /// Reliability is degraded.
        reliability_degraded: bool[1] => flag;
        /// All namespaces of the group are read-only.
        read_only: bool[1] => flag;
        __: u8[4];
    }
}

structure! {
    /// Endurance Group Information (09h) of the group that the log-specific identifier names. Numbers of 16 bytes are little
    /// endian.
    EnduranceGroupLog[512], "Endurance Group Information" {
        /// Critical warnings.
        0 critical_warning: EnduranceGroupWarning => fields;
        /// Features of the group (2.0).
        1 features: u8 => hex;
        2 reserved2: u8;
        /// Spare capacity left, in percent.
        3 available_spare: u8 => unit("%");
        /// Threshold of the spare capacity, in percent.
        4 available_spare_threshold: u8 => unit("%");
        /// Life used by the vendor's estimate, in percent; may be over 100.
        5 percentage_used: u8 => unit("%");
        /// The domain of the group.
        6 domain_id: u16 => number;
        8 reserved8: [u8; 24];
        /// Data that can be written over the group's life, in 10^9 bytes.
        32 endurance_estimate: [u8; 16] => unit("× 10^9 bytes");
        /// Data read, in 10^9 bytes.
        48 data_units_read: [u8; 16] => unit("× 10^9 bytes");
        /// Data written by hosts, in 10^9 bytes.
        64 data_units_written: [u8; 16] => unit("× 10^9 bytes");
        /// Data written to the media, in 10^9 bytes.
        80 media_units_written: [u8; 16] => unit("× 10^9 bytes");
        /// Read commands completed.
        96 host_read_commands: [u8; 16] => number;
        /// Write commands completed.
        112 host_write_commands: [u8; 16] => number;
        /// Data integrity errors that were not recovered.
        128 media_and_data_integrity_errors: [u8; 16] => number;
        /// Entries of the error log over the controller's life.
        144 error_information_log_entries: [u8; 16] => number;
        /// Capacity, in bytes (2.0).
        160 total_capacity: [u8; 16] => unit("bytes");
        /// Unallocated capacity, in bytes (2.0).
        176 unallocated_capacity: [u8; 16] => unit("bytes");
        192 reserved192: [u8; 320];
    }
}

structure! {
    /// Predictable Latency Per NVM Set (0Ah) of the set that the log-specific identifier names.
    PredictableLatencyLog[512], "Predictable Latency Per NVM Set" {
        /// The window that the set is in.
        0 status: u8 => names(&[
            (0, "predictable latency mode is off"),
            (1, "deterministic window"),
            (2, "non-deterministic window"),
        ]);
        1 reserved1: u8;
        /// Events since the page was read: bits 0 to 2 few reads, writes or time left; 14 limit exceeded, 15 excursion.
        2 event_type: u16 => hex;
        4 reserved4: [u8; 28];
        /// Typical 4 KiB reads in a deterministic window.
        32 reads_typical: u64 => number;
        /// Typical writes in a deterministic window, in units of the optimal write size.
        40 writes_typical: u64 => number;
        /// Longest time of a deterministic window, in ms.
        48 time_maximum: u64 => unit("ms");
        /// Shortest time of a non-deterministic window that is long enough for the longest deterministic one, in ms.
        56 non_deterministic_time_minimum_high: u64 => unit("ms");
        /// Shortest time of a non-deterministic window for the shortest deterministic one, in ms.
        64 non_deterministic_time_minimum_low: u64 => unit("ms");
        72 reserved72: [u8; 56];
        /// Estimated reads left in this window.
        128 reads_estimate: u64 => number;
        /// Estimated writes left in this window.
        136 writes_estimate: u64 => number;
        /// Estimated time left in this window, in ms.
        144 time_estimate: u64 => unit("ms");
        152 reserved152: [u8; 360];
    }
}

fixed_pages! {
    EnduranceGroupLog: ENDURANCE_GROUP;
    PredictableLatencyLog: PREDICTABLE_LATENCY;
}

/// The two pages that list where events happened have the same form.
macro_rules! aggregates {
    ($($(#[$meta:meta])* $header:ident, $log:ident: $id:ident, $title:literal, $list:literal;)*) => {
        $(
            structure! {
                $(#[$meta])*
                $header[8], $title {
                    /// Identifiers in the list.
                    0 entries: u64 => number;
                }
            }

            #[doc = concat!("The ", $title, " page with its identifiers.")]
            pub type $log = VariableLog<$header>;

            impl VariableLog<$header> {
                /// Returns the identifiers.
                #[must_use]
                pub fn identifiers(&self) -> Vec<u16> {
                    entries(&self.rest, self.header.entries)
                }
            }

            impl LogHeader for $header {
                const ID: LogPageId = LogPageId::$id;

                fn rest_len(&self, _: &[u8]) -> u64 {
                    // An identifier has 16 bits: more entries are none.
                    self.entries.min(1 << 16) * 2
                }

                fn rest_fields(&self, rest: &[u8]) -> Vec<Field> {
                    let all: Vec<u16> = entries(rest, self.entries);
                    vec![Field::new($list, Value::List(all.iter().map(show::number).collect()))]
                }
            }
        )*
    };
}

aggregates! {
    /// The header of the Endurance Group Event Aggregate page (0Fh).
    EnduranceGroupAggregateHeader, EnduranceGroupAggregateLog: ENDURANCE_GROUP_AGGREGATE,
        "Endurance Group Event Aggregate", "endurance_groups";
    /// The header of the Predictable Latency Event Aggregate page (0Bh).
    PredictableLatencyAggregateHeader, PredictableLatencyAggregateLog: PREDICTABLE_LATENCY_AGGREGATE,
        "Predictable Latency Event Aggregate", "nvm_sets";
}

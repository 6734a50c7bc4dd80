//! Base, "Device Self-test".

use zerocopy::little_endian::{U32, U64};

use super::super::fields::Value;
use super::super::identify::IdentifyController;
use super::super::macros::{bits, structure};
use super::id::LogPageId;
use super::page::{fixed_pages, list};

const OPERATIONS: &[(u64, &str)] = &[
    (0, "no test"),
    (1, "short test"),
    (2, "extended test"),
    (3, "host-initiated refresh"),
    (14, "vendor specific"),
];

const RESULTS: &[(u64, &str)] = &[
    (0, "completed without error"),
    (1, "aborted by a Device Self-test command"),
    (2, "aborted by a controller level reset"),
    (3, "aborted: the namespace was removed"),
    (4, "aborted by a Format NVM command"),
    (5, "a fatal or unknown error: the test did not complete"),
    (6, "a segment failed, it is not known which"),
    (7, "segments failed; the first is in the segment number"),
    (8, "aborted for an unknown reason"),
    (9, "aborted by a Sanitize command"),
    (15, "unused entry"),
];

bits! {
    /// Result of a self-test.
    SelfTestStatus(u8), "Device Self-test Status" {
        /// The result; Fh is an entry that was not used.
        result: u8[4] => names(RESULTS);
        /// The test that ran (STC).
        test: u8[4] => names(OPERATIONS);
    }
}

bits! {
    /// Valid fields of a self-test result.
    SelfTestValid(u8), "Valid Diagnostic Information" {
        /// The namespace identifier is valid.
        namespace_id: bool[1] => flag;
        /// The failing LBA is valid.
        failing_lba: bool[1] => flag;
        /// The status code type is valid.
        status_code_type: bool[1] => flag;
        /// The status code is valid.
        status_code: bool[1] => flag;
        __: u8[4];
    }
}

structure! {
    /// The result of one self-test, 28 bytes.
    SelfTestResult[28], "Self-test Result" {
        /// Result of the test (DSTS).
        0 status: SelfTestStatus => fields;
        /// The first segment that failed (SEGNUM), if `status` says that one did.
        1 segment_number: u8 => number;
        /// Valid fields among the following ones (VDINFO).
        2 valid: SelfTestValid => fields;
        3 reserved3: u8;
        /// Power-on hours when the test ended (POH).
        4 power_on_hours: U64 => unit("h");
        /// The namespace that the test failed on (NSID).
        12 namespace_id: U32 => number;
        /// The block that the test failed on (FLBA).
        16 failing_lba: U64 => number;
        /// Status code type of the error (SCT).
        24 status_code_type: u8 => number;
        /// Status code of the error (SC).
        25 status_code: u8 => hex;
        /// Vendor specific.
        26 vendor_specific: [u8; 2] => bytes;
    }
}

structure! {
    /// Device Self-test (06h).
    SelfTestLog[564], "Device Self-test" {
        /// The test that runs now, in bits 3:0 (CDSTO).
        0 current_operation: u8 => names(OPERATIONS);
        /// Completed part of the test, in percent, in bits 6:0 (CDSTC).
        1 current_completion: u8 => unit("%");
        2 reserved2: [u8; 2];
        /// The last 20 results, the newest first; see [`Self::results`].
        4 all_results: [SelfTestResult; 20] = shown_results;
    }
}

impl SelfTestLog {
    /// Returns the results of the entries that are used, the newest first.
    #[must_use]
    pub fn results(&self) -> &[SelfTestResult] {
        let used = |result: &SelfTestResult| result.status.result() != 15 && result.status.test() != 0;
        let count = self.all_results.iter().take_while(|result| used(result)).count();
        &self.all_results[..count]
    }

    fn shown_results(&self) -> Value {
        list(self.results())
    }
}

fixed_pages! { SelfTestLog: DEVICE_SELF_TEST; }

//! PCIe transport, "Physical Interface Receiver Eye Opening Measurement".

use zerocopy::FromBytes;

use super::super::fields::{Field, Structure, Value, ascii};
use super::super::macros::{bits, structure};
use super::id::LogPageId;
use super::page::{LogHeader, VariableLog};

bits! {
    /// Optional parts of a lane's measurement.
    EyeOptionalData(u8), "Optional Data Present" {
        /// Each eye as rows of characters (PEFP).
        printable_eye: bool[1] => flag;
        /// Each eye as the vendor describes it (EDFP).
        eye_data: bool[1] => flag;
        __: u8[6];
    }
}

/// The measurement has completed (EOMIP).
const COMPLETED: u8 = 2;

structure! {
    /// The header of the Eye Opening Measurement page (19h) of a PCIe port. The log-specific identifier names a controller of
    /// the port. Bits 3:2 of the log-specific parameter are the action: 0 reads, 1 starts a measurement, 2 aborts one; bits 1:0
    /// are the quality of a measurement that is started: 0 good, 1 better, 2 best.
    EyeOpeningHeader[64], "Physical Interface Receiver Eye Opening Measurement" {
        /// The identifier of the page.
        0 log_page_id: u8 => hex;
        /// Progress of the measurement (EOMIP).
        1 progress: u8 => names(&[(0, "not started"), (1, "in progress"), (2, "completed")]);
        /// Size of this header (HSIZE).
        2 header_size: u16 => unit("bytes");
        /// Size of the page (RSZ).
        4 result_size: u32 => unit("bytes");
        /// Measurements that were started, modulo 256 (EDGN).
        8 generation: u8 => number;
        /// Revision of the page (LREV).
        9 revision: u8 => number;
        /// Optional parts of each lane's measurement (ODP).
        10 optional_data: EyeOptionalData => fields;
        /// Lanes of the port (LNS).
        11 lanes: u8 => number;
        /// Eyes of a lane (EPL).
        12 eyes_per_lane: u8 => number;
        /// The log-specific parameter that started the measurement (LSPFC).
        13 parameter: u8 => hex;
        /// Bits 3:0: speed of the link when the measurement was started (LINFO).
        14 link_information: u8 => hex;
        15 reserved15: [u8; 3];
        /// The log-specific identifier that started the measurement: a controller (LSIC).
        18 controller_id: u16 => number;
        /// Size of a lane's measurement (DS).
        20 descriptor_size: u32 => unit("bytes");
        /// Measurements of lanes in the page (ND).
        24 descriptors: u16 => number;
        /// Most rows from the center of an eye to its top or bottom edge (MAXTB).
        26 max_top_bottom: u16 => number;
        /// Most columns from the center of an eye to its left or right edge (MAXLR).
        28 max_left_right: u16 => number;
        /// Estimated time of a measurement of good quality, in seconds; 0: less than one (ETGOOD).
        30 good_quality_time: u16 => unit("s");
        /// Estimated time of a measurement of better quality, in seconds (ETBETTER).
        32 better_quality_time: u16 => unit("s");
        /// Estimated time of a measurement of the best quality, in seconds (ETBEST).
        34 best_quality_time: u16 => unit("s");
        36 reserved36: [u8; 28];
    }
}

bits! {
    /// Success of a lane's measurement.
    EyeStatus(u8), "Measurement Status" {
        /// The measurement was successful (MSCS).
        successful: bool[1] => flag;
        __: u8[7];
    }
}

structure! {
    /// The measurement of one eye of a lane, 32 bytes, before its optional parts. Without a printable eye the numbers of rows
    /// and columns are 0.
    EyeLane[32], "EOM Lane Descriptor" {
        0 reserved0: u8;
        /// Success of the measurement (MSTAT).
        1 status: EyeStatus => fields;
        /// The lane (LN).
        2 lane: u8 => number;
        /// The eye of the lane, from the lowest voltage on.
        3 eye: u8 => number;
        /// Rows from the center to the top edge.
        4 top: u16 => number;
        /// Rows from the center to the bottom edge (BTM).
        6 bottom: u16 => number;
        /// Columns from the center to the left edge (LFT).
        8 left: u16 => number;
        /// Columns from the center to the right edge (RGT).
        10 right: u16 => number;
        /// Rows of the printable eye (NROWS).
        12 rows: u16 => number;
        /// Columns of the printable eye (NCOLS).
        14 columns: u16 => number;
        /// Size of the vendor's data; before revision 3 of the page it had 16 bits (EDLEN).
        16 eye_data_length: u32 => unit("bytes");
        20 reserved20: [u8; 12];
    }
}

/// The measurement of one eye of a lane, with its optional parts as far as the page has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EyeMeasurement<'a> {
    /// The lane, the eye and its edges.
    pub lane: EyeLane,
    /// The eye in characters, row by row from the top: `1` outside of the eye, `0` within; see [`Self::rows`].
    pub printable: &'a [u8],
    /// The vendor's data.
    pub data: &'a [u8],
}

impl<'a> EyeMeasurement<'a> {
    /// Returns the rows of the printable eye, from the top; none if there is no such eye.
    pub fn rows(&self) -> impl Iterator<Item = &'a [u8]> {
        self.printable.chunks_exact(usize::from(self.lane.columns).max(1))
    }

    fn of(descriptor: &'a [u8], has_printable: bool) -> Option<Self> {
        let (lane, rest) = EyeLane::read_from_prefix(descriptor).ok()?;
        let characters = if has_printable { usize::from(lane.rows) * usize::from(lane.columns) } else { 0 };
        let (printable, rest) = rest.split_at(characters.min(rest.len()));
        let data = &rest[..rest.len().min(lane.eye_data_length as usize)];
        Some(Self { lane, printable, data })
    }

    fn shown(&self) -> Value {
        let mut fields = self.lane.fields();
        let rows = self.rows().map(|row| Value::Text(ascii(row)));
        fields.push(Field::new("printable_eye", Value::List(rows.collect())));
        fields.push(Field::new("eye_data", Value::Bytes(self.data.to_vec())));
        Value::Fields(fields)
    }
}

/// The Eye Opening Measurement page with the measurements of its lanes.
pub type EyeOpeningLog = VariableLog<EyeOpeningHeader>;

impl VariableLog<EyeOpeningHeader> {
    /// Returns the measurement of each eye, by lane, as far as the page has them.
    pub fn measurements(&self) -> impl Iterator<Item = EyeMeasurement<'_>> {
        measurements(self.header, &self.rest)
    }
}

fn measurements(header: EyeOpeningHeader, rest: &[u8]) -> impl Iterator<Item = EyeMeasurement<'_>> {
    let size = (header.descriptor_size as usize).max(size_of::<EyeLane>());
    let has_printable = header.optional_data.printable_eye();
    let all = rest.chunks_exact(size).take(header.descriptors.into());
    all.filter_map(move |descriptor| EyeMeasurement::of(descriptor, has_printable))
}

impl LogHeader for EyeOpeningHeader {
    const ID: LogPageId = LogPageId::EYE_OPENING;

    fn rest_len(&self, _: &[u8]) -> u64 {
        let is_completed = self.progress == COMPLETED;
        if is_completed { u64::from(self.descriptor_size) * u64::from(self.descriptors) } else { 0 }
    }

    fn rest_fields(&self, rest: &[u8]) -> Vec<Field> {
        let shown = measurements(*self, rest).map(|measurement| measurement.shown());
        vec![Field::new("measurements", Value::List(shown.collect()))]
    }
}

#[cfg(test)]
mod tests {
    use super::super::LogPage;
    use super::*;
    use crate::spec::IdentifyController;
    use zerocopy::{FromZeros, IntoBytes};

    /// Makes a page with two eyes of 2 rows and 3 columns each, and 5 bytes of the vendor's.
    fn page() -> Vec<u8> {
        let header = EyeOpeningHeader {
            progress: COMPLETED,
            header_size: 64,
            revision: 3,
            optional_data: EyeOptionalData::new().with_printable_eye(true).with_eye_data(true),
            descriptor_size: 44,
            descriptors: 2,
            best_quality_time: 90,
            ..FromZeros::new_zeroed()
        };
        let lane = EyeLane {
            status: EyeStatus::new().with_successful(true),
            lane: 1,
            top: 14,
            rows: 2,
            columns: 3,
            eye_data_length: 5,
            ..FromZeros::new_zeroed()
        };
        let mut page = header.as_bytes().to_vec();
        for eye in 0..2 {
            page.extend(EyeLane { eye, ..lane }.as_bytes());
            page.extend(b"101000vwxyz\0");
        }
        page
    }

    #[test]
    fn lanes_have_a_printable_eye_and_data() {
        let page = page();
        let identify = IdentifyController::new_zeroed();
        assert_eq!(EyeOpeningLog::len(&page[..64], &identify), page.len() as u64);
        let log = EyeOpeningLog::from_page(&page).unwrap();
        let all: Vec<_> = log.measurements().collect();
        assert_eq!(all.iter().map(|one| (one.lane.lane, one.lane.eye)).collect::<Vec<_>>(), [(1, 0), (1, 1)]);
        assert_eq!(all[1].rows().collect::<Vec<_>>(), [&b"101"[..], b"000"]);
        assert_eq!(all[1].data, b"vwxyz");
        let text = log.to_string();
        for line in ["printable eye: 101, 000", "eye data: 767778797a", "status: successful", "90 s"] {
            assert!(text.contains(line), "{line}: {text}");
        }
    }

    #[test]
    fn a_measurement_in_progress_is_a_header() {
        let mut page = page();
        page[1] = 1;
        assert_eq!(EyeOpeningLog::len(&page, &IdentifyController::new_zeroed()), 64);
        // Without printable eyes the vendor's data comes first.
        page[10] = 0;
        let log = EyeOpeningLog::from_page(&page).unwrap();
        assert_eq!(log.measurements().next().unwrap().data, b"10100");
        // Sizes beyond the page's end, and none at all.
        page[20..24].copy_from_slice(&[0xff; 4]);
        assert_eq!(EyeOpeningLog::from_page(&page).unwrap().measurements().count(), 0);
        page[20..24].fill(0);
        assert_eq!(EyeOpeningLog::from_page(&page).unwrap().measurements().count(), 2);
    }
}

//! Base 2.3, "Power Measurement".

use super::super::features::TimestampData;
use super::super::fields::{Field, Value};
use super::super::macros::{bits, structure};
use super::id::LogPageId;
use super::page::{LogHeader, VariableLog, entries, list};

bits! {
    /// Attributes of the power measurements.
    PowerMeasurementAttributes(u16), "Power Measurement Attributes" {
        /// Power is being measured (PME).
        enabled: bool[1] => flag;
        /// The data has gaps (NCPDF).
        non_contiguous: bool[1] => flag;
        /// The power is an estimate (EPF).
        estimated: bool[1] => flag;
        /// The time of the maximum is noted (MIPWRTS).
        maximum_timestamp: bool[1] => flag;
        /// Some measurements are above the last bin of the histogram (PHDO).
        histogram_overflow: bool[1] => flag;
        __: u8[7];
        /// The subject of the measurement (PMT).
        measurement_type: u8[4] => names(&[(0, "total power of the NVM subsystem")]);
    }
}

bits! {
    /// A power, as a value and its unit.
    MeasuredPower(u32), "Power" {
        /// The value, in units of the scale (PWRV).
        value: u16[16] => number;
        /// The unit of the value (PWRS).
        scale: u8[2] => names(&[(0, "not reported"), (1, "100 µW"), (2, "10 mW")]);
        __: u16[14];
    }
}

impl MeasuredPower {
    /// Returns the power in µW; `None` if it is not reported.
    #[must_use]
    pub const fn microwatts(self) -> Option<u64> {
        match self.scale() {
            1 => Some(self.value() as u64 * 100),
            2 => Some(self.value() as u64 * 10_000),
            _ => None,
        }
    }
}

structure! {
    /// The header of the Power Measurement page (25h).
    PowerMeasurementHeader[64], "Power Measurement" {
        /// Version of the page: 0 (VER).
        0 version: u8 => number;
        /// Measurements that were started, modulo 256 (PMGN).
        1 generation: u8 => number;
        /// Attributes (PMA).
        2 attributes: PowerMeasurementAttributes => fields;
        /// Length of the page in bytes, this header included (SZE).
        4 length: u32 => unit("bytes");
        /// Intervals whose power was measured, FFFFFFFFh at most (PMC).
        8 count: u32 => number;
        /// Bins of the histogram in the page (NPHD).
        12 bins: u16 => number;
        /// Time until the measurements stop, in minutes; 0 not specified (SMTR).
        14 remaining_time: u16 => unit("min");
        /// The time when the measurements stopped (SMTS).
        16 stop_timestamp: TimestampData => fields;
        /// Size of a bin's descriptor (PHDS).
        24 bin_descriptor_size: u16 => unit("bytes");
        /// Width of a bin, in mW (PHBS).
        26 bin_width: u16 => unit("mW");
        /// Most bins that the controller reports (NPHDS).
        28 bins_supported: u16 => number;
        /// Size of the vendor's data after the bins (VSS).
        30 vendor_specific_length: u16 => unit("bytes");
        /// Measurements above the last bin, FFFFFFFFh at most (PHDOC).
        32 overflow_count: u32 => number;
        36 reserved36: [u8; 4];
        /// Average power of the intervals (AIPWR).
        40 average_power: MeasuredPower => fields;
        /// Highest power of an interval (MIPWR).
        44 maximum_power: MeasuredPower => fields;
        /// The time of the highest power (MIPWRT).
        48 maximum_timestamp: TimestampData => fields;
        /// Largest error of a measurement, in percent; 255 not reported (IPWRPE).
        56 percent_error: u8 => unit("%");
        57 reserved57: [u8; 7];
    }
}

structure! {
    /// A bin of the power histogram, 8 bytes.
    PowerBin[8], "Power Histogram Descriptor" {
        /// Measurements in the bin, FFFFFFFFh at most (PHBC).
        0 count: u32 => number;
        /// The least power of the bin (PHBLT).
        4 lower_threshold: MeasuredPower => fields;
    }
}

/// The Power Measurement page with its histogram.
pub type PowerMeasurementLog = VariableLog<PowerMeasurementHeader>;

impl VariableLog<PowerMeasurementHeader> {
    /// Returns the bins of the histogram, as far as the page has them.
    #[must_use]
    pub fn bins(&self) -> Vec<PowerBin> {
        self.header.split(&self.rest).0
    }

    /// Returns the vendor's data after the bins.
    #[must_use]
    pub fn vendor_specific(&self) -> &[u8] {
        self.header.split(&self.rest).1
    }
}

impl PowerMeasurementHeader {
    /// Returns the bins, and the vendor's data.
    fn split<'a>(&self, rest: &'a [u8]) -> (Vec<PowerBin>, &'a [u8]) {
        let size = usize::from(self.bin_descriptor_size).max(size_of::<PowerBin>());
        let end = rest.len().min(size * usize::from(self.bins));
        let (bins, vendor) = rest.split_at(end);
        let bins = bins.chunks_exact(size).flat_map(|descriptor| entries(descriptor, 1)).collect();
        (bins, &vendor[..vendor.len().min(self.vendor_specific_length.into())])
    }
}

impl LogHeader for PowerMeasurementHeader {
    const ID: LogPageId = LogPageId::POWER_MEASUREMENT;

    fn rest_len(&self, _: &[u8]) -> u64 {
        u64::from(self.length).saturating_sub(size_of::<Self>() as u64)
    }

    fn rest_fields(&self, rest: &[u8]) -> Vec<Field> {
        let (bins, vendor) = self.split(rest);
        vec![
            Field::new("histogram", list(&bins)),
            Field::new("vendor_specific", Value::Bytes(vendor.to_vec())),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::super::LogPage;
    use super::*;
    use crate::spec::IdentifyController;
    use zerocopy::{FromZeros, IntoBytes};

    #[test]
    fn a_histogram_has_bins_of_any_size() {
        // 16 bytes for each bin, of which this revision knows 8.
        let header = PowerMeasurementHeader {
            attributes: PowerMeasurementAttributes::new().with_enabled(true).with_estimated(true),
            length: 64 + 2 * 16 + 3,
            count: 12,
            bins: 2,
            bin_descriptor_size: 16,
            bin_width: 250,
            vendor_specific_length: 3,
            average_power: MeasuredPower::new().with_value(345).with_scale(2),
            ..FromZeros::new_zeroed()
        };
        let mut page = header.as_bytes().to_vec();
        for bin in 0..2 {
            let lower_threshold = MeasuredPower::new().with_value(bin * 2500).with_scale(1);
            page.extend(PowerBin { count: u32::from(bin) + 5, lower_threshold }.as_bytes());
            page.extend([0xaa; 8]);
        }
        page.extend(b"abc");
        assert_eq!(PowerMeasurementLog::len(&page[..64], &IdentifyController::new_zeroed()), 99);
        let log = PowerMeasurementLog::from_page(&page).unwrap();
        let bins: Vec<_> =
            log.bins().iter().map(|bin| (bin.count, bin.lower_threshold.microwatts())).collect();
        assert_eq!(bins, [(5, Some(0)), (6, Some(250_000))]);
        assert_eq!(log.vendor_specific(), b"abc");
        assert_eq!(log.header.average_power.microwatts(), Some(3_450_000));
        assert_eq!(log.header.maximum_power.microwatts(), None);
        let text = log.to_string();
        for line in ["enabled: yes", "estimated: yes", "bin width: 250 mW", "vendor specific: 616263"] {
            assert!(text.contains(line), "{line}: {text}");
        }
    }
}

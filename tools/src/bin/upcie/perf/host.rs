//! The machine and time of a run, to tell two results apart later.

use super::cores;
use nix::{
    sys::utsname::uname,
    time::{ClockId, clock_gettime},
};
use serde::{Deserialize, Serialize};
use std::{env, fs};
use upcie_core::pci::Bdf;

/// Machine, program and time of a run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Host {
    /// The machine's name.
    pub name: String,
    /// The kernel's release.
    pub kernel: String,
    /// The processor's model.
    pub cpu: Option<String>,
    /// Number of cores that the process may use.
    pub cores: Option<usize>,
    /// Start of the run in UTC (RFC 3339).
    pub started: String,
    /// This program's version.
    pub tool: String,
    /// The command line.
    pub command: Vec<String>,
}

impl Host {
    /// Describes this machine and process.
    pub fn new() -> Self {
        let name = uname().ok();
        let of = |text: &dyn Fn(&nix::sys::utsname::UtsName) -> std::ffi::OsString| {
            name.as_ref().map_or_else(String::new, |name| text(name).to_string_lossy().into_owned())
        };
        let seconds = clock_gettime(ClockId::CLOCK_REALTIME).map_or(0, |time| time.tv_sec());
        Self {
            name: of(&|name| name.nodename().to_owned()),
            kernel: of(&|name| name.release().to_owned()),
            cpu: cpu(),
            cores: cores::allowed().ok().map(|cores| cores.len()),
            started: utc(seconds),
            tool: format!("upcie {}", env!("CARGO_PKG_VERSION")),
            command: env::args_os().map(|word| word.to_string_lossy().into_owned()).collect(),
        }
    }
}

/// Reads the model of the first processor; `None` on architectures that don't name it.
fn cpu() -> Option<String> {
    let text = fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("model name"))?;
    Some(line.trim_start_matches([' ', '\t', ':']).to_owned())
}

/// Reads the NUMA node of a PCI function; `None` if the firmware does not name it.
pub fn numa_node(bdf: Bdf) -> Option<u32> {
    let text = fs::read_to_string(format!("/sys/bus/pci/devices/{bdf}/numa_node")).ok()?;
    text.trim().parse().ok()
}

/// Formats seconds since 1970 as a date and a time (RFC 3339).
fn utc(seconds: i64) -> String {
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // Years begin in March, so that a leap day is the last day of its year. An era has 400 years.
    let day = days + 719_468;
    let (era, day) = (day.div_euclid(146_097), day.rem_euclid(146_097));
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let date = day - (153 * month + 2) / 5 + 1;
    let (year, month) = (year + era * 400, month + 3);
    let (year, month) = if month > 12 { (year + 1, month - 12) } else { (year, month) };
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{date:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::utc;

    #[test]
    fn seconds_become_dates() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (951_868_799, "2000-02-29T23:59:59Z"),
            (1_735_689_599, "2024-12-31T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
            (-1, "1969-12-31T23:59:59Z"),
        ] {
            assert_eq!(utc(seconds), text);
        }
    }
}

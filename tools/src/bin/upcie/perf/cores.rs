//! Cores that threads are pinned to.

use anyhow::{Context, bail};
use nix::{
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    unistd::Pid,
};
use std::{fs, str::FromStr};

/// A list of cores: `0,2-3`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cores(pub Vec<usize>);

impl FromStr for Cores {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |item: &str| format!("{item:?} is not a core: give numbers and ranges, as in 0,2-3");
        let mut cores = Vec::new();
        for item in text.split(',') {
            let (first, last) = item.split_once('-').unwrap_or((item, item));
            let number = |text: &str| text.parse::<u16>().map(usize::from).map_err(|_| wrong(item));
            let (first, last) = (number(first)?, number(last)?);
            if first > last {
                return Err(wrong(item));
            }
            if last - first >= CpuSet::count() {
                return Err(format!("{item:?}: Linux supports at most {} cores here", CpuSet::count()));
            }
            for core in first..=last {
                if cores.contains(&core) {
                    return Err(format!("core {core} is given twice: each core takes one thread"));
                }
                cores.push(core);
            }
        }
        Ok(Self(cores))
    }
}

/// Parses a mask of cores in hexadecimal: `0x5` for cores 0 and 2.
pub fn parse_mask(text: &str) -> Result<Cores, String> {
    let wrong =
        || format!("{text:?} is not a mask of cores: use hexadecimal digits, as in 0x5 for cores 0 and 2");
    let digits = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")).ok_or_else(wrong)?;
    let mut cores = Vec::new();
    for (place, digit) in digits.chars().rev().enumerate() {
        let bits = digit.to_digit(16).ok_or_else(wrong)?;
        cores.extend((0..4).filter(|bit| bits >> bit & 1 != 0).map(|bit| place * 4 + bit));
    }
    match cores.last() {
        None => Err(wrong()),
        Some(&last) if last >= CpuSet::count() => {
            Err(format!("{text:?}: Linux supports at most {} cores here", CpuSet::count()))
        }
        Some(_) => Ok(Cores(cores)),
    }
}

/// Checks that this process may run on each of the cores.
pub fn check(cores: &[usize]) -> anyhow::Result<()> {
    let allowed = allowed()?;
    for &core in cores {
        if allowed.contains(&core) {
            continue;
        }
        // Without sysfs a core that is missing and a core that is not allowed look alike.
        let online = fs::read_to_string("/sys/devices/system/cpu/online").unwrap_or_default();
        let exists = online.trim().parse::<Cores>().is_ok_and(|online| online.0.contains(&core));
        if exists {
            bail!(
                "--cores: core {core} is not allowed for this process, only {} are (by taskset or a container's limits)",
                ranges(&allowed)
            );
        }
        bail!("--cores: there is no core {core}; this process may use {}", ranges(&allowed));
    }
    Ok(())
}

/// Pins the calling thread to a core.
pub fn pin(core: usize) -> anyhow::Result<()> {
    let pin = || {
        let mut set = CpuSet::new();
        set.set(core)?;
        sched_setaffinity(Pid::from_raw(0), &set)
    };
    pin().with_context(|| format!("pinning a thread to core {core}"))
}

/// Returns the cores that the process may use.
pub fn allowed() -> anyhow::Result<Vec<usize>> {
    let set = sched_getaffinity(Pid::from_raw(0)).context("reading which cores this process may use")?;
    Ok((0..CpuSet::count()).filter(|&core| set.is_set(core).unwrap_or(false)).collect())
}

/// Formats cores as numbers and ranges: `0,2-3`.
fn ranges(cores: &[usize]) -> String {
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for &core in cores {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == core => *last = core,
            _ => runs.push((core, core)),
        }
    }
    let text = |&(first, last): &(usize, usize)| match first == last {
        true => first.to_string(),
        false => format!("{first}-{last}"),
    };
    runs.iter().map(text).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_and_ranges_are_read() {
        for (text, cores) in [("0", vec![0]), ("0,2-3", vec![0, 2, 3]), ("3,1", vec![3, 1]), ("5-5", vec![5])]
        {
            assert_eq!(text.parse(), Ok(Cores(cores)), "{text}");
        }
        for text in ["", ",", "0,", "a", "3-1", "-1", "1-", "1-2-3", "0x1", "99999999"] {
            assert!(text.parse::<Cores>().unwrap_err().contains("is not a core"), "{text}");
        }
        assert!("1,0-2".parse::<Cores>().unwrap_err().contains("core 1 is given twice"));
    }

    #[test]
    fn a_mask_names_cores_by_bits() {
        for (text, cores) in [("0x1", vec![0]), ("0x5", vec![0, 2]), ("0X100f", vec![0, 1, 2, 3, 12])] {
            assert_eq!(parse_mask(text), Ok(Cores(cores)), "{text}");
        }
        for text in ["", "0x", "0x0", "3", "0xg", "-1", "0-3"] {
            assert!(parse_mask(text).unwrap_err().contains("is not a mask"), "{text}");
        }
        assert!(parse_mask(&format!("0x{}", "f".repeat(1000))).unwrap_err().contains("at most"));
    }

    #[test]
    fn a_core_that_does_not_exist_is_named() {
        let error = check(&[60_000]).unwrap_err().to_string();
        assert!(error.contains("no core 60000"), "{error}");
    }

    #[test]
    fn a_pinned_thread_has_one_core() {
        std::thread::spawn(|| {
            let core = *allowed().unwrap().last().unwrap();
            check(&[core]).unwrap();
            pin(core).unwrap();
            assert_eq!(allowed().unwrap(), [core]);
            // This thread is pinned now: no other core is allowed.
            if let Some(other) = (0..core).next() {
                assert!(check(&[other]).unwrap_err().to_string().contains("not allowed"));
            }
        })
        .join()
        .unwrap();
    }

    #[test]
    fn runs_of_cores_are_written_as_ranges() {
        assert_eq!(ranges(&[0, 2, 3, 4, 7]), "0,2-4,7");
    }
}

//! `--wait auto`: chooses a wait mode by the load of the cores at the start of the run.
//!
//! Polling needs an idle core for each thread and for each embedded controller. With these cores it is faster
//! than interrupts in every respect; without them it takes the time that the controller needs.

use super::{args::PerfArgs, cores};
use crate::{target, units};
use std::{
    fs, thread,
    time::{Duration, Instant},
};
use upcie_nvme::{Controller, Wait};

/// Time over which the cores are measured; the kernel counts in hundredths of a second.
const WINDOW: Duration = Duration::from_millis(100);
/// Share of this time that an idle core was idle.
const IDLE: f64 = 0.7;

/// Tick counts of all cores at one time.
#[derive(Debug)]
pub struct CoreTimes {
    at: Instant,
    cores: Vec<Core>,
}

/// Tick counts of a core.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Core {
    number: usize,
    idle: u64,
    all: u64,
}

impl CoreTimes {
    /// Reads the counts; `None` if the kernel does not publish them.
    pub fn now() -> Option<Self> {
        let cores = parse(&fs::read_to_string("/proc/stat").ok()?);
        (!cores.is_empty()).then(|| Self { at: Instant::now(), cores })
    }

    /// Counts the cores of this process that have been idle since, and all its cores. Sleeps until [`WINDOW`]
    /// has passed.
    fn idle(&self) -> Option<(usize, usize)> {
        thread::sleep(WINDOW.saturating_sub(self.at.elapsed()));
        let allowed = cores::allowed().ok()?;
        let now = Self::now()?;
        Some((count_idle(&self.cores, &now.cores, &allowed), allowed.len()))
    }
}

/// Parses the `cpuN` lines of /proc/stat: user, nice, system, idle, iowait, …
fn parse(text: &str) -> Vec<Core> {
    let core = |line: &str| {
        let mut words = line.strip_prefix("cpu")?.split(' ');
        let number = words.next()?.parse().ok()?;
        // Guest time is part of the first two fields already.
        let ticks: Vec<u64> = words.take(8).map_while(|word| word.parse().ok()).collect();
        Some(Core { number, idle: ticks.get(3)? + ticks.get(4)?, all: ticks.iter().sum() })
    };
    text.lines().filter_map(core).collect()
}

fn count_idle(before: &[Core], now: &[Core], allowed: &[usize]) -> usize {
    let is_idle = |now: &&Core| {
        let before = before.iter().find(|core| core.number == now.number);
        before.is_some_and(|before| {
            let (idle, all) = (now.idle.saturating_sub(before.idle), now.all.saturating_sub(before.all));
            all > 0 && idle as f64 >= all as f64 * IDLE
        })
    };
    now.iter().filter(|core| allowed.contains(&core.number)).filter(is_idle).count()
}

/// Chooses a wait mode for these controllers; returns it with the reason.
pub fn choose<'a>(
    args: &PerfArgs,
    controllers: impl Iterator<Item = &'a Controller>,
    before: Option<&CoreTimes>,
) -> (Wait, String) {
    for controller in controllers {
        let reason = match controller.vectors() {
            Ok(0) => "has no interrupts".into(),
            Ok(_) => continue,
            Err(error) => format!("can't tell its interrupts: {error}"),
        };
        return (Wait::Poll, format!("{} {reason}", controller.name()));
    }
    let emulators = args.addresses.iter().filter(|address| target::is_embedded(address)).count();
    by_cores(args.waiting(), before.and_then(CoreTimes::idle), args.threads().len(), emulators)
}

fn by_cores(
    adaptive: Wait,
    idle: Option<(usize, usize)>,
    threads: usize,
    emulators: usize,
) -> (Wait, String) {
    let needed = match emulators {
        0 => units::number(threads as u64, "thread"),
        count => format!(
            "{} and {}",
            units::number(threads as u64, "thread"),
            units::number(count as u64, "embedded controller")
        ),
    };
    let verb = if threads + emulators == 1 { "needs" } else { "need" };
    match idle {
        Some((idle, all)) if idle >= threads + emulators => (
            Wait::Poll,
            format!("{idle} of {} idle, and {needed} {verb} one each", units::number(all as u64, "core")),
        ),
        Some((idle, all)) => {
            let cores = units::number(all as u64, "core");
            (adaptive, format!("{idle} of {cores} idle, and {needed} {verb} one each to poll all the time"))
        }
        None => (adaptive, "the kernel does not tell which cores are idle".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_cores_are_counted() {
        let text = "cpu  1 2 3\ncpu0 10 0 5 100 5 0 0 0 0 0\ncpu1 10 0 5 100 5 0 0 0 0 0\nintr 5\n";
        let before = parse(text);
        assert_eq!(before[1], Core { number: 1, idle: 105, all: 120 });
        let now = parse("cpu0 11 0 5 108 6 0 0 0 9 9\ncpu1 18 0 5 102 5 0 0 0 0 0\n");
        assert_eq!(count_idle(&before, &now, &[0, 1]), 1);
        assert_eq!(count_idle(&before, &now, &[1]), 0);
        assert_eq!(count_idle(&before, &before, &[0, 1]), 0, "no time has passed");
        assert!(parse("").is_empty());
    }

    /// Polling is the default only if each thread has a core.
    #[test]
    fn polling_is_chosen_only_with_a_core_per_thread() {
        let adaptive = Wait::Adaptive(Duration::from_micros(20));
        for (idle, threads, emulators, wait, part) in [
            (
                Some((2, 2)),
                1,
                1,
                Wait::Poll,
                "2 of 2 cores idle, and 1 thread and 1 embedded controller need one each",
            ),
            (Some((1, 2)), 1, 1, adaptive, "1 of 2 cores idle"),
            (Some((1, 2)), 1, 0, Wait::Poll, "1 thread needs one each"),
            (Some((3, 4)), 4, 0, adaptive, "4 threads need"),
            (None, 1, 0, adaptive, "does not tell"),
        ] {
            let (chosen, reason) = by_cores(adaptive, idle, threads, emulators);
            assert!(chosen == wait && reason.contains(part), "{reason}");
        }
    }
}

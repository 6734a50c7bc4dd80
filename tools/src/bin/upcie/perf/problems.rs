//! Problems of a run: one line each for failures and for causes that falsify the measurement; used by text,
//! JSON and images.

use super::report::{Problem, Report, Thread};
use crate::units::{self, grouped};

/// Least share of the time that a polling thread must run to measure the device rather than the scheduler.
const MIN_RUNNING: f64 = 0.90;
/// Largest share of the time that a thread may wait for a core.
const MAX_WAITING: f64 = 0.05;
/// Least share of the rate that counts as met: the last I/Os may still be in flight at the end.
const MIN_RATE: f64 = 0.95;

impl Report {
    /// Returns the problems that the run found, or finds them for results of an earlier version, which have
    /// none.
    pub fn problems(&self) -> Vec<Problem> {
        self.problems.clone().unwrap_or_else(|| self.find_problems())
    }

    /// Finds the problems from the numbers.
    pub fn find_problems(&self) -> Vec<Problem> {
        let faults = &self.counts.faults;
        let failed = faults.errors.saturating_sub(faults.mismatches);
        let some =
            |count: u64, what: &str| (count > 0).then(|| format!("{} {what}", units::number(count, "I/O")));
        let found = [
            ("errors", some(failed, "failed")),
            ("mismatches", some(faults.mismatches, "returned wrong data")),
            ("interrupted", self.interruption()),
            ("lost", self.losses()),
            ("rate", self.missed_rate()),
            ("starved", self.starvation()),
            ("cores", self.overcommitment()),
        ];
        let problem = |(kind, text): (&str, Option<String>)| Some(Problem { kind: kind.into(), text: text? });
        found.into_iter().filter_map(problem).collect()
    }

    fn interruption(&self) -> Option<String> {
        let p = &self.parameters;
        let planned = match (p.count, p.time_ns) {
            (Some(count), _) => format!(", {} of {} I/Os", grouped(self.counts.total.ios), grouped(count)),
            (None, Some(time)) => format!(" of {}", units::nanos(time as f64)),
            (None, None) => String::new(),
        };
        let after = units::nanos(self.elapsed_ns as f64);
        self.interrupted.then(|| format!("Interrupted after {after}{planned}"))
    }

    fn losses(&self) -> Option<String> {
        let lost: Vec<_> = self.devices.iter().filter(|device| device.lost.is_some()).collect();
        let [first, others @ ..] = lost.as_slice() else { return None };
        let more = match others.len() {
            0 => String::new(),
            count => format!(", and {} more", units::number(count as u64, "device")),
        };
        let after = match first.lost_after_ns {
            _ if first.counts.total.ios + first.counts.faults.errors == 0 => {
                " before anything completed".into()
            }
            Some(after) => format!(" after {}", units::nanos(after as f64)),
            None => String::new(),
        };
        let in_flight = match first.lost_in_flight {
            Some(count) if count > 0 => format!(", with {} in flight", units::number(count, "I/O")),
            _ => String::new(),
        };
        Some(format!("{} was lost{after}{in_flight}{more}", first.address))
    }

    fn missed_rate(&self) -> Option<String> {
        let rate = self.parameters.rate?;
        let done =
            self.counts.total.ios + self.counts.faults.errors.saturating_sub(self.counts.faults.mismatches);
        let achieved = done as f64 * 1e9 / self.elapsed_ns.max(1) as f64;
        let count = |value: f64| units::count(value);
        (achieved < rate as f64 * MIN_RATE)
            .then(|| format!("the rate was not met: {} of {} IOPS", count(achieved), count(rate as f64)))
    }

    fn starvation(&self) -> Option<String> {
        let polls = self.parameters.wait == "poll";
        let ran =
            |thread: &Thread| Some(thread.cpu_ns as f64 / thread.wall_ns.filter(|&wall| wall > 0)? as f64);
        let waited = |thread: &Thread| {
            Some(thread.core_wait_ns? as f64 / thread.wall_ns.filter(|&wall| wall > 0)? as f64)
        };
        let starved = |thread: &Thread| {
            polls && ran(thread).is_some_and(|ran| ran < MIN_RUNNING)
                || waited(thread).is_some_and(|waited| waited > MAX_WAITING)
        };
        let all = self.threads.iter().zip(1..).filter(|(thread, _)| starved(thread));
        let worst = |thread: &Thread| waited(thread).unwrap_or(0.0).max(1.0 - ran(thread).unwrap_or(1.0));
        let count = all.clone().count();
        if let Some((thread, number)) = all.max_by(|(a, _), (b, _)| worst(a).total_cmp(&worst(b))) {
            let percent = |share: Option<f64>| share.unwrap_or(0.0) * 100.0;
            let how = match polls && ran(thread).is_some_and(|ran| ran < MIN_RUNNING) {
                true => format!("ran only {:.0} % of the time", percent(ran(thread))),
                false => format!("waited for a core {:.0} % of the time", percent(waited(thread))),
            };
            let others = match count {
                1 => String::new(),
                _ => format!(" ({count} of {} threads like it)", self.threads.len()),
            };
            return Some(format!(
                "thread {number} {how}{others}: the results measure the scheduler, not the device"
            ));
        }
        let waited = self.emulator_wait_ns? as f64 / self.elapsed_ns.max(1) as f64;
        (waited > MAX_WAITING).then(|| {
            format!(
                "the embedded controller waited for a core {:.0} % of the time: the results measure the scheduler, not the device",
                waited * 100.0
            )
        })
    }

    fn overcommitment(&self) -> Option<String> {
        let cores = self.host.as_ref()?.cores?;
        let emulators = self.devices.iter().filter(|device| is_embedded(&device.address)).count();
        let threads = units::number(self.threads.len() as u64, "thread");
        let controllers = match emulators {
            0 => String::new(),
            count => format!(" and {}", units::number(count as u64, "embedded controller")),
        };
        (self.threads.len() + emulators > cores).then(|| {
            format!("{threads}{controllers} share {}: they take turns", units::number(cores as u64, "core"))
        })
    }
}

fn is_embedded(address: &str) -> bool {
    address == "emu" || address.starts_with("emu:")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// Makes results of an earlier version (without newer fields), with these changes.
    fn report(changes: &[(&str, serde_json::Value)]) -> Report {
        let mut value = json!({
            "schema": 2,
            "parameters": {
                "rw": "randread", "block_sizes": [], "depth": 32, "queues": 1, "threads": 1, "buffers": "auto",
                "time_ns": 20_000_000_000_u64, "wait": "poll", "seed": 1, "verify": false, "latency_breakdown": false
            },
            "interrupted": false, "elapsed_ns": 1_000_000_000, "ios": 1000, "bytes": 4096000, "iops": 1000.0,
            "bytes_per_second": 4096000.0, "errors": 0, "errors_by_status": {}, "mismatches": 0,
            "devices": [{
                "address": "emu", "model": "", "serial": "", "firmware": "", "version": "2.0", "namespaces": [1],
                "namespace": 1, "blocks": 1, "block_size": 512, "max_transfer": 4096, "queue_pairs": 1,
                "queue_entries": 2, "offset": 0, "size": 512, "ios": 1000, "bytes": 4096000, "iops": 1000.0,
                "bytes_per_second": 4096000.0, "errors": 0, "errors_by_status": {}, "mismatches": 0
            }],
            "threads": [{
                "ios": 1000, "bytes": 4096000, "iops": 1000.0, "bytes_per_second": 4096000.0, "errors": 0,
                "cpu_ns": 110_000_000
            }],
            "intervals": []
        });
        for (pointer, change) in changes {
            let (parent, key) = pointer.rsplit_once('/').unwrap();
            value.pointer_mut(parent).unwrap()[key] = change.clone();
        }
        serde_json::from_value(value).unwrap()
    }

    #[track_caller]
    fn check(changes: &[(&str, serde_json::Value)], expected: &[(&str, &str)]) {
        let found = report(changes).find_problems();
        let found: Vec<_> = found.iter().map(|one| (one.kind.as_str(), one.text.as_str())).collect();
        assert_eq!(found, expected);
    }

    /// Failed I/Os, wrong data, an interruption, a lost device and a missed rate each have a line of their own.
    #[test]
    fn each_problem_is_named_in_a_line() {
        check(&[], &[]);
        check(
            &[("/errors", json!(85_668)), ("/mismatches", json!(85_656))],
            &[("errors", "12 I/Os failed"), ("mismatches", "85,656 I/Os returned wrong data")],
        );
        check(&[("/errors", json!(1))], &[("errors", "1 I/O failed")]);
        check(&[("/interrupted", json!(true))], &[("interrupted", "Interrupted after 1.00 s of 20.0 s")]);
        check(
            &[("/devices/0/lost", json!("gone")), ("/devices/0/lost_after_ns", json!(700_000_000))],
            &[("lost", "emu was lost after 700 ms")],
        );
        check(&[("/parameters/rate", json!(1010))], &[]);
        check(
            &[("/parameters/rate", json!(100_000))],
            &[("rate", "the rate was not met: 1000 of 100k IOPS")],
        );
    }

    /// A thread that did not run, or that waited for a core, measures the scheduler, and the report says so.
    #[test]
    fn a_thread_without_a_core_is_named() {
        let wall = ("/threads/0/wall_ns", json!(1_000_000_000));
        check(
            std::slice::from_ref(&wall),
            &[(
                "starved",
                "thread 1 ran only 11 % of the time: the results measure the scheduler, not the device",
            )],
        );
        let irq = ("/parameters/wait", json!("irq"));
        check(&[wall.clone(), irq.clone()], &[]);
        check(
            &[wall.clone(), irq, ("/threads/0/core_wait_ns", json!(230_000_000))],
            &[(
                "starved",
                "thread 1 waited for a core 23 % of the time: the results measure the scheduler, not the device",
            )],
        );
        let whole = ("/threads/0/cpu_ns", json!(990_000_000));
        check(&[wall.clone(), whole.clone()], &[]);
        check(
            &[wall, whole, ("/emulator_wait_ns", json!(400_000_000))],
            &[(
                "starved",
                "the embedded controller waited for a core 40 % of the time: the results measure the scheduler, not the device",
            )],
        );
        let host = json!({ "name": "", "kernel": "", "cpu": null, "cores": 1, "started": "", "tool": "", "command": [] });
        check(
            &[("/host", host)],
            &[("cores", "1 thread and 1 embedded controller share 1 core: they take turns")],
        );
    }
}

//! Copies sources of the libraries, with the threads, locks and atomics of loom in place of the standard library's. The sources
//! themselves know nothing of loom.

use std::{env, fs, path::Path};

/// A copy: its name, its source, and the texts that are replaced to break it, each with the other text.
type Copy = (&'static str, &'static str, &'static [(&'static str, &'static str)]);

const SLOTS: &str = "../../upcie-core/src/mmio/slots.rs";
const PER_PROCESS: &str = "../../upcie-core/src/process/per_process.rs";
const GATE: &str = "../../upcie-core/src/gate.rs";
const LIVE: &str = "../../upcie-nvme/src/engine/live.rs";
const RESETS: &str = "../../upcie-nvme/src/controller/resets.rs";
const QUEUE_IDS: &str = "../../upcie-nvme/src/controller/queue_ids.rs";
const SUBSYSTEM: &str = "../../upcie-nvme/src/controller/subsystem.rs";
const REMOTE: &str = "../../upcie-nvme/src/async_queue/remote.rs";

const COPIES: &[Copy] = &[
    ("slots", SLOTS, &[]),
    ("slots_without_fence", SLOTS, &[("fence(Ordering::Acquire);", "")]),
    (
        "slots_taken_twice",
        SLOTS,
        &[(
            "slot.taken.compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed).is_ok()",
            "!slot.taken.load(Ordering::Acquire) && { slot.taken.store(true, Ordering::Relaxed); true }",
        )],
    ),
    ("per_process", PER_PROCESS, &[]),
    (
        "per_process_lost",
        PER_PROCESS,
        &[(
            "match self.newest.compare_exchange(newest, new, Ordering::AcqRel, Ordering::Acquire) {",
            "self.newest.store(new, Ordering::Release); match Ok::<_, *mut Value<T>>(new) {",
        )],
    ),
    ("gate", GATE, &[]),
    (
        "gate_released_silently",
        GATE,
        &[(
            "lock(&self.gate.queue).taken = false;\n        self.gate.released.notify_all();",
            "lock(&self.gate.queue).taken = false;",
        )],
    ),
    (
        "gate_left_silently",
        GATE,
        &[(
            "waiting.retain(|waiting| *waiting != ticket);\n            self.gate.released.notify_all();",
            "waiting.retain(|waiting| *waiting != ticket);",
        )],
    ),
    ("live", LIVE, &[]),
    // A change of a namespace brings an epoch back that has ended.
    (
        "live_revived",
        LIVE,
        &[(
            "if !current.epoch.is_over() {\n            current.epoch.stamp.store(current.next, Ordering::Release);\n        }",
            "current.epoch.stamp.store(current.next, Ordering::Release);",
        )],
    ),
    // A change during a reset is forgotten.
    (
        "live_forgetful",
        LIVE,
        &[(
            "current.next = unique();\n        if !current.epoch.is_over() {",
            "if !current.epoch.is_over() {\n            current.next = unique();",
        )],
    ),
    (
        "live_relaxed",
        LIVE,
        &[("self.let_go.store(true, Ordering::Release);", "self.let_go.store(true, Ordering::Relaxed);")],
    ),
    ("resets", RESETS, &[]),
    ("queue_ids", QUEUE_IDS, &[]),
    ("subsystem", SUBSYSTEM, &[]),
    // Handles stay valid while the change is under way.
    (
        "subsystem_never_stale",
        SUBSYSTEM,
        &[(
            "changes.push((number, operation.into()));\n        self.make_stale();",
            "changes.push((number, operation.into()));",
        )],
    ),
    // Blocking calls are waited for before the handles are stale.
    (
        "subsystem_stale_late",
        SUBSYSTEM,
        &[
            ("let leave = self.begin(operation);", ""),
            (
                "check()?;\n        Ok(leave)",
                "let leave = self.begin(operation);\n        check()?;\n        Ok(leave)",
            ),
        ],
    ),
    // Queue pairs are looked for once.
    ("subsystem_looks_once", SUBSYSTEM, &[("check()?;\n        Ok(leave)", "Ok(leave)")]),
    // Handles made during the change stay valid.
    (
        "subsystem_ends_silently",
        SUBSYSTEM,
        &[(
            "self.subsystem.make_stale();\n        lock(&self.subsystem.state)",
            "lock(&self.subsystem.state)",
        )],
    ),
    ("remote", REMOTE, &[]),
    (
        "remote_asleep_late",
        REMOTE,
        &[(
            "self.is_asleep.swap(true, Ordering::SeqCst);\n        self.requests.is_empty()",
            "let empty = self.requests.is_empty(); self.is_asleep.swap(true, Ordering::SeqCst); empty",
        )],
    ),
    (
        "remote_closed_late",
        REMOTE,
        &[(
            "if self.is_closed() {\n            self.refuse_requests();\n        } else {\n            self.rouse();\n        }",
            "self.rouse();",
        )],
    ),
    // Who leaves the line does not wake the next.
    (
        "remote_left_silently",
        REMOTE,
        &[(
            "place.and_then(|place| room.waiting.remove(place));\n        let next = room.next_waker();",
            "place.and_then(|place| room.waiting.remove(place));\n        let next = None::<Waker>;",
        )],
    ),
    // The slot of a dropped future is lost if the queue has the command.
    (
        "remote_slot_lost",
        REMOTE,
        &[(
            "drop((slot, other, buffer));\n                self.release(index);",
            "drop((slot, other, buffer));",
        )],
    ),
    // The slot of a dropped future is free before the queue is done with the command.
    (
        "remote_slot_doubled",
        REMOTE,
        &[(
            "let is_done = matches!(before, Slot::Done(_));",
            "let is_done = !matches!(before, Slot::Abandoned);",
        )],
    ),
];

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let out = env::var("OUT_DIR").expect("cargo sets it");
    for (name, source, broken) in COPIES {
        println!("cargo::rerun-if-changed={source}");
        let text = fs::read_to_string(source).unwrap_or_else(|error| panic!("{source}: {error}"));
        let mut text = copy(&text);
        for (from, to) in *broken {
            assert_eq!(text.matches(from).count(), 1, "{name}: {source} must have this text once: {from}");
            text = text.replace(from, to);
        }
        let path = Path::new(&out).join(name).with_extension("rs");
        fs::write(&path, text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }
}

/// Returns a source without its unit tests and comments, over the items of the module `shim`.
fn copy(source: &str) -> String {
    let code = source.split("#[cfg(test)]\nmod tests").next().unwrap_or(source);
    let lines = code.lines().filter(|line| !line.trim_start().starts_with("//"));
    let mut text = lines.map(|line| format!("{line}\n")).collect::<String>();
    for library in ["std", "crossbeam_queue", "upcie_core"] {
        text = text.replace(&format!("use {library}::"), &format!("use crate::shim::{library}::"));
    }
    // Paths beside those of imports, and what loom makes at run time. A counter that only gives out numbers stays a static.
    text.replace(" std::ptr::", " core::ptr::")
        .replace("(std::ptr::", "(core::ptr::")
        .replace("const fn new", "fn new")
        .replace(
            ": AtomicU64 = AtomicU64::new(",
            ": core::sync::atomic::AtomicU64 = core::sync::atomic::AtomicU64::new(",
        )
}

//! Copies sources of the libraries, with the threads, locks and atomics of loom in place of the standard library's. The sources
//! themselves know nothing of loom.

use std::{env, fs, path::Path};

/// A copy: its name, its source, and a text that is replaced to break it, with the other text.
type Copy = (&'static str, &'static str, Option<(&'static str, &'static str)>);

const SLOTS: &str = "../../upcie-core/src/mmio/slots.rs";
const PER_PROCESS: &str = "../../upcie-core/src/process/per_process.rs";
const REMOTE: &str = "../../upcie-nvme/src/async_queue/remote.rs";

const COPIES: &[Copy] = &[
    ("slots", SLOTS, None),
    ("slots_without_fence", SLOTS, Some(("fence(Ordering::Acquire);", ""))),
    (
        "slots_taken_twice",
        SLOTS,
        Some((
            "slot.taken.compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed).is_ok()",
            "!slot.taken.load(Ordering::Acquire) && { slot.taken.store(true, Ordering::Relaxed); true }",
        )),
    ),
    ("per_process", PER_PROCESS, None),
    (
        "per_process_lost",
        PER_PROCESS,
        Some((
            "match self.newest.compare_exchange(newest, new, Ordering::AcqRel, Ordering::Acquire) {",
            "self.newest.store(new, Ordering::Release); match Ok::<_, *mut Value<T>>(new) {",
        )),
    ),
    ("remote", REMOTE, None),
    (
        "remote_asleep_late",
        REMOTE,
        Some((
            "self.is_asleep.swap(true, Ordering::SeqCst);\n        self.requests.is_empty()",
            "let empty = self.requests.is_empty(); self.is_asleep.swap(true, Ordering::SeqCst); empty",
        )),
    ),
    (
        "remote_closed_late",
        REMOTE,
        Some((
            "if self.is_closed() {\n            self.refuse_requests();\n        } else {\n            self.rouse();\n        }",
            "self.rouse();",
        )),
    ),
];

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let out = env::var("OUT_DIR").expect("cargo sets it");
    for (name, source, broken) in COPIES {
        println!("cargo::rerun-if-changed={source}");
        let text = fs::read_to_string(source).unwrap_or_else(|error| panic!("{source}: {error}"));
        let mut text = copy(&text);
        if let Some((from, to)) = broken {
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
    // Paths beside those of imports, and what loom makes at run time.
    text.replace(" std::ptr::", " core::ptr::")
        .replace("(std::ptr::", "(core::ptr::")
        .replace("const fn new", "fn new")
}

//! One boot of the guest with its suites.

use std::time::{Duration, Instant};

use anyhow::Result;

use crate::cargo::Executable;
use crate::lab::c_programs;
use crate::lab::devices::FUNCTIONS;
use crate::lab::fio::GUEST_ENGINE;
use crate::lab::guest::{self, Job};
use crate::lab::kernel::Lab;
use crate::lab::payload::{BIN, Payload};
use crate::process::{self, log, quote};
use crate::suites::modes::{self, Boot, Mode};
use crate::suites::row::Row;
use crate::suites::run::{self, DEADLINE, Run};

/// A suite or an example, with its mode.
struct Cell<'a> {
    executable: &'a Executable,
    name: String,
    mode: Option<&'static Mode>,
}

/// Boots the guest and runs the wanted suites of this boot; does nothing if there are none.
pub fn run(run: &mut Run<'_>, lab: &Lab, boot: &'static Boot, executables: &[Executable]) -> Result<()> {
    let options = boot.options();
    let cells = plan(run, boot, executables);
    if cells.is_empty() {
        return Ok(());
    }
    let file = |cell: &Cell<'_>| cell.name.replace(' ', "-");
    let jobs: Vec<_> = cells.iter().map(|cell| job(boot, cell, &file(cell))).collect();
    // Made again for a second boot: the first one takes it.
    let payload = |cells: &[Cell<'_>]| -> Result<Payload> {
        let mut payload = Payload::new(false, options.iommu);
        for cell in cells {
            payload.add_program_as(&cell.executable.path, &file(cell))?;
        }
        if let (Some(built), true) = (&run.fio, cells.iter().any(|cell| cell.name.starts_with(modes::FIO))) {
            payload.add_program(&built.fio)?;
            payload.add_library(&built.engine, GUEST_ENGINE)?;
        }
        let of_c = cells.iter().any(|cell| c_programs::SUITES.contains(&&*cell.name));
        for program in run.tools.iter().chain(run.c_programs.iter().filter(|_| of_c)) {
            payload.add_program(program)?;
        }
        Ok(payload)
    };
    log!("booting the guest for {} suites: {} ({})", jobs.len(), boot.about, options.iommu.words());
    let started = Instant::now();
    let (mut rows, strict, verbose) = (Vec::new(), run.strict, run.choice.verbose);
    let grace = Duration::from_secs(60);
    let mut first = 0;
    let problem = loop {
        let payload = payload(&cells[first..])?;
        let left = &jobs[first..];
        let result =
            guest::run(lab, &options, payload, left, DEADLINE + grace, verbose, &mut |job, result| {
                let cell = &cells[rows.len()];
                let (code, text, harness) = (Some(result.code), &result.stdout, cell.executable.test);
                let mut row = Row::of(&job.name, boot.name, result.time, code, text, harness, strict);
                row.mode = cell.mode.map(|mode| mode.name);
                row = row.refuse_empty();
                if let (None, Some(leaked)) = (&row.problem, &result.leaked) {
                    row.problem = Some(format!("leaked: {}", changes(leaked)));
                }
                if row.problem.is_some() && !verbose {
                    println!("{}{}", result.stdout, result.stderr);
                }
                log!("{}", row.line(24));
                rows.push(row);
            });
        let error = match result {
            Ok(results) => break complaint(&results.dmesg, left),
            Err(error) => error,
        };
        process::check_interrupt()?;
        println!("{error:#}");
        if first == 0 && is_assertion(&format!("{error:#}")) {
            first = rows.len();
            log!(
                "QEMU has ended by an assertion of its own: booting again for the {} suites that are left",
                jobs.len() - first
            );
            if first > 0 {
                continue;
            }
        }
        // Suites that did not run count as failed.
        for (job, cell) in jobs.iter().zip(&cells).skip(rows.len()) {
            let problem = Some("the guest went down".to_owned());
            let mut row = Row::step(&job.name, boot.name, Duration::ZERO, problem);
            row.mode = cell.mode.map(|mode| mode.name);
            rows.push(row);
        }
        break Some("went down, or hung".to_owned());
    };
    run.rows.append(&mut rows);
    run.push(Row::step("the guest itself", boot.name, started.elapsed(), problem));
    Ok(())
}

/// Returns `true` if an error tells that QEMU has aborted itself: under emulation it did so once, when a device's memory moved
/// while a processor used it (`iotlb_to_section`). A second time counts.
fn is_assertion(error: &str) -> bool {
    error.contains("QEMU ended by itself") && error.contains("iotlb_to_section: Assertion")
}

/// Lists the programs of this boot in the order of running.
fn plan<'a>(run: &Run<'_>, boot: &'static Boot, executables: &'a [Executable]) -> Vec<Cell<'a>> {
    let named = || {
        let all = executables.iter().map(|executable| (executable, run::name(executable)));
        all.filter(|(_, name)| run.choice.wants(name))
    };
    let mut cells = Vec::new();
    let (all, own) = (run.choice.mode.is_empty(), run.choice.mode.iter().any(|word| word == boot.name));
    for (executable, name) in named() {
        let suite = (all || own) && run::is_suite(executable) && boot.owns(&name);
        let example = all && executable.kind == "example" && boot.examples && modes::is_safe_on_qemu(&name);
        if suite || example {
            cells.push(Cell { executable, name, mode: None });
        }
    }
    for mode in boot.modes.iter().filter(|mode| modes::wanted(mode.name, &run.choice.mode)) {
        for (executable, name) in named() {
            if run::is_suite(executable) && mode.takes(&name) {
                cells.push(Cell { executable, name, mode: Some(mode) });
            }
        }
    }
    cells
}

fn job(boot: &Boot, cell: &Cell<'_>, file: &str) -> Job {
    let argument = if cell.executable.test { "" } else { FUNCTIONS[0] };
    let seconds = DEADLINE.as_secs();
    let script = format!("exec timeout -s KILL {seconds} {BIN}/{file} {argument} 2>&1");
    let name = cell.name.clone();
    let Some(mode) = cell.mode else {
        return Job { setup: boot.setup.to_owned(), ..Job::new(name, script) };
    };
    let devices: Vec<_> = FUNCTIONS.iter().map(|function| format!("{}{function}", mode.scheme)).collect();
    let script = if cell.name.starts_with(modes::FIO) {
        format!("export UPCIE_FIO_ENGINE={GUEST_ENGINE}\n{script}")
    } else {
        script
    };
    let script = format!(
        "export UPCIE_TEST_DEVICES={} UPCIE_TEST_SCALE={}\n{script}",
        quote(&devices.join(",")),
        mode.scale
    );
    let setup = mode.setup.to_owned();
    Job { name, script, setup, user: mode.user, memlock: mode.memlock }
}

/// Lists the lines that differ between the two parts of init's report, `before:` and `after:`.
fn changes(report: &str) -> String {
    let (before, after) = report.split_once("after:\n").unwrap_or((report, ""));
    let before: Vec<_> = before.lines().skip(1).collect();
    let after: Vec<_> = after.lines().collect();
    let gone = before.iter().filter(|line| !after.contains(line)).map(|line| format!("before {line}"));
    let new = after.iter().filter(|line| !before.contains(line)).map(|line| format!("after {line}"));
    gone.chain(new).collect::<Vec<_>>().join("; ")
}

/// Finds a message in the kernel's log that no suite may cause: an error of the kernel, or a DMA fault. A
/// suite can announce DMA faults with one line, and end the announcement with another.
fn complaint(dmesg: &str, jobs: &[Job]) -> Option<String> {
    const SIGNS: [&str; 5] =
        ["BUG: ", "Oops", "general protection fault", "blocked for more than", "DMAR: [DMA"];
    const WANTED: &str = "upcie-test: DMA faults are wanted";
    const OVER: &str = "upcie-test: DMA faults are over";
    let (mut job, mut wanted) = ("the boot", false);
    for line in dmesg.lines() {
        if let Some((_, index)) = line.split_once("LAB-JOB ") {
            let index = index.trim().parse::<usize>().ok();
            job = index.and_then(|index| jobs.get(index)).map_or("?", |job| &job.name);
            wanted = false;
        }
        wanted = (wanted || line.contains(WANTED)) && !line.contains(OVER);
        let excused = wanted && line.contains("DMAR: ");
        if SIGNS.iter().any(|sign| line.contains(sign)) && !excused {
            println!("{dmesg}");
            return Some(format!("in {job}: {line}"));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::{changes, complaint, is_assertion};
    use crate::lab::guest::Job;

    #[test]
    fn a_complaint_names_the_job() {
        let jobs = [Job::new("a", ""), Job::new("b", "")];
        let fault = "[ 9.1] DMAR: [DMA Write NO_PASID] Request device [01:00.0]";
        let log = |text: &str| complaint(text, &jobs);
        assert_eq!(log("[ 1.0] LAB-JOB 000\n[ 2.0] LAB-JOB 001\n"), None);
        let told = log(&format!("LAB-JOB 000\nLAB-JOB 001\n{fault}\n")).expect("a complaint");
        assert!(told.starts_with("in b: ") && told.contains("[01:00.0]"), "{told}");
        let announced = format!("LAB-JOB 000\nupcie-test: DMA faults are wanted\n{fault}\n");
        assert_eq!(log(&announced), None);
        assert!(log(&format!("{announced}upcie-test: DMA faults are over\n{fault}\n")).is_some());
        assert!(
            log(&format!("{announced}LAB-JOB 001\n{fault}\n")).is_some(),
            "the announcement ends with its job"
        );
        assert!(log("upcie-test: DMA faults are wanted\nBUG: oh\n").is_some());
    }

    #[test]
    fn a_leak_lists_the_changed_lines() {
        let report = "before:\nnode0: 64, 64 free\nafter:\nnode0: 64, 62 free\n/dev/hugepages/x\n";
        let wanted = "before node0: 64, 64 free; after node0: 64, 62 free; after /dev/hugepages/x";
        assert_eq!(changes(report), wanted);
    }

    #[test]
    fn an_assertion_of_qemu_is_told_from_other_ends() {
        let aborted = "the guest went down before the command ended: QEMU ended by itself (signal: 6 (SIGABRT))\n\
                       qemu-system-x86_64: system/physmem.c:2678: iotlb_to_section: Assertion `x' failed.";
        assert!(is_assertion(aborted));
        for other in ["QEMU ended by itself (exit status: 1)", "the command did not end within 400 s"] {
            assert!(!is_assertion(other));
        }
    }
}

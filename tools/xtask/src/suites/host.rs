//! Suites, unit tests, doc tests and examples that run on this machine.

use std::fs;

use anyhow::Result;

use crate::cargo::Executable;
use crate::suites::modes::{self, GUEST_ONLY, HOST};
use crate::suites::run::{Run, is_suite, name};

/// Runs the wanted ones.
pub fn run(run: &mut Run<'_>, executables: &[Executable]) -> Result<()> {
    let logs = run.workspace.target.join("xtask");
    fs::create_dir_all(&logs)?;
    let log = logs.join("suite.log");
    for executable in executables {
        let name = name(executable);
        if name.starts_with(GUEST_ONLY) || !run.choice.wants(&name) {
            continue;
        }
        if is_suite(executable) && modes::anywhere(&name) {
            for &(mode, device) in HOST.iter().filter(|(mode, _)| modes::wanted(mode, &run.choice.mode)) {
                let mut command = run.workspace.command(executable);
                command.env("UPCIE_TEST_DEVICES", device);
                let mut row = run.suite(&name, true, &mut command, &log)?.refuse_empty();
                row.mode = Some(mode);
                run.push(row);
            }
            continue;
        }
        if !run.choice.mode.is_empty() {
            continue;
        }
        let mut command = run.workspace.command(executable);
        if executable.kind == "example" {
            command.arg("emu");
        } else if !executable.test {
            continue;
        }
        let row = run.suite(&name, executable.test, &mut command, &log)?;
        // Most programs have no unit tests.
        let nothing = row.passed + row.failed + row.ignored == 0 && row.problem.is_none();
        if nothing && executable.kind != "test" {
            continue;
        }
        run.push(row.refuse_empty());
    }
    if run.choice.mode.is_empty() && run.choice.wants("doc tests") {
        let mut command = run.workspace.cargo(&["test", "--quiet", "--workspace", "--doc"]);
        let row = run.suite("doc tests", true, &mut command, &log)?;
        if row.passed + row.failed + row.ignored > 0 || row.problem.is_some() {
            run.push(row);
        }
    }
    Ok(())
}

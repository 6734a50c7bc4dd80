//! The Python package: its wheel is built and installed into an environment of its own, where its tests and its example run.

use std::{
    path::{Path, PathBuf},
    process::Command,
};
use upcie_tests::{left_out, process::programs};

/// Runs a command, and returns what it prints; an error has all of it.
fn run(command: &mut Command) -> Result<String, String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    Err(format!("{command:?}: {}\n{}", output.status, text.join("\n")))
}

/// Makes an environment with the tools that build the wheel, and with numpy; returns its `bin` directory.
fn environment(directory: &Path) -> Result<PathBuf, String> {
    let python = "import sys, venv, ensurepip; assert sys.version_info >= (3, 11), sys.version";
    run(Command::new("python3").args(["-c", python]))?;
    let bin = directory.join("venv/bin");
    // An interrupted installation is repeated, and one that is complete asks for nothing.
    if !bin.join("pip").exists() {
        run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(directory.join("venv")))?;
    }
    let tools = ["maturin>=1.9,<2", "numpy>=1.24,<3"];
    run(Command::new(bin.join("pip"))
        .args(["install", "--quiet", "--disable-pip-version-check"])
        .args(tools))?;
    Ok(bin)
}

#[test]
fn the_wheel_passes_its_tests() {
    let target = programs().parent().expect("the build directory").to_owned();
    let directory = target.join("python");
    let bin = match environment(&directory) {
        Ok(bin) => bin,
        Err(why) => return left_out(format!("Python from 3.11 on with venv, and a package index: {why}")),
    };
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join("../python");
    let wheels = directory.join("wheels");
    let _ = std::fs::remove_dir_all(&wheels);
    let mut build = Command::new(bin.join("maturin"));
    build.args(["build", "--locked", "--profile", "dev", "--out"]).arg(&wheels).current_dir(&python);
    // A directory of its own: cargo may be in use by the one that runs this test. None of that one's flags for a build in it.
    build.env("CARGO_TARGET_DIR", &directory).env("VIRTUAL_ENV", directory.join("venv"));
    run(&mut build).unwrap();
    let wheels: Vec<_> = std::fs::read_dir(&wheels).unwrap().map(|entry| entry.unwrap().path()).collect();
    let [wheel] = &wheels[..] else { panic!("one wheel: {wheels:?}") };
    assert!(
        wheel.to_string_lossy().contains("-cp311-abi3-"),
        "{}: for CPython from 3.11 on",
        wheel.display()
    );
    let install = ["install", "--quiet", "--disable-pip-version-check", "--force-reinstall", "--no-deps"];
    run(Command::new(bin.join("pip")).args(install).arg(wheel)).unwrap();

    let interpreter = || {
        let mut command = Command::new(bin.join("python"));
        // Not in the package's own folder, whose sources would be imported.
        command.args(["-X", "faulthandler"]).current_dir(&directory);
        command
    };
    run(interpreter().arg(python.join("tests/test_upcie.py"))).unwrap();
    let image = directory.join("latency.svg");
    let example = python.join("examples/latency.py");
    let printed = run(interpreter().arg(&example).args(["emu:size=64M"]).arg(&image)).unwrap();
    assert!(printed.contains("µs") && printed.contains("####"), "a histogram: {printed}");
    assert!(std::fs::read_to_string(image).unwrap().contains("<svg"));
    run(interpreter().args(["-c", "import doctest, upcie; assert doctest.testmod(upcie).attempted >= 2; exit(doctest.testmod(upcie).failed)"])).unwrap();
}

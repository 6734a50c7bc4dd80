//! `cargo xtask test`: all checks and suites, on this machine and in the guest.
//!
//! A whole run has four threads: one for the suites of this machine and the long soak, two for the guest's boots, whose emulated
//! processors leave most of a core idle, and one for the steps. Each adds rows to a run of its own.

use std::mem;
use std::process::{Command, ExitCode};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Instant;

use anyhow::{Result, bail};

use crate::cargo::{Executable, Workspace, is_ci};
use crate::checks::{
    assembly, examples, instructions, layers, licences, package, planted, simulation, soak, words,
};
use crate::lab::c_programs;
use crate::lab::fio;
use crate::lab::install;
use crate::lab::kernel::Lab;
use crate::lab::prepare::prepare;
use crate::process::{self, log};
use crate::suites::modes::{self, BOOTS, Boot};
use crate::suites::row::{self, Row};
use crate::suites::run::{Choice, Run, SUITES};
use crate::suites::{boot, host, linux, matrix};

/// The suites that need fio's engine: those of modes, and one of this machine.
const FIO_SUITES: [&str; 2] = ["fio_jobs", "fio_endings"];
const HOST_FIO: &str = "host_fio";
/// Suites, a command that succeeds where they have what they need, and the Debian package that has it.
const PROGRAMS: [(&[&str], &[&str], &str); 4] = [
    (&["abi"], &["c++", "--version"], "g++"),
    (&["abi"], &["make", "--version"], "make"),
    (&["abi"], &["pkg-config", "--version"], "pkg-config"),
    (&["host_python"], &["python3", "-c", "import ensurepip, venv"], "python3-venv"),
];
/// Second architecture that the libraries must build for.
const AARCH64: RustPart = RustPart {
    name: "aarch64-unknown-linux-gnu",
    list: &["target", "list", "--installed"],
    install: &["target", "add", "aarch64-unknown-linux-gnu"],
};
/// Bytes that a run writes at most when nothing is built yet.
const WHOLE_RUN: u64 = 8 << 30;
/// Oldest Rust that builds the libraries: `rust-version` in Cargo.toml.
const MSRV: RustPart = RustPart {
    name: "1.85",
    list: &["toolchain", "list"],
    install: &["toolchain", "install", "1.85", "--profile", "minimal"],
};
/// The libraries with all of their features but `testing`, which no program uses.
const LIBRARIES: [&str; 6] = [
    "--package",
    "upcie-core",
    "--package",
    "upcie-nvme",
    "--features",
    "upcie-nvme/async,upcie-nvme/fault-files,upcie-nvme/serde",
];

/// A target or a toolchain that rustup installs.
struct RustPart {
    name: &'static str,
    list: &'static [&'static str],
    install: &'static [&'static str],
}

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  cargo xtask test\n  cargo xtask test --no-guest\n  cargo xtask test integrity     # suites and steps whose name contains it\n  cargo xtask test --mode vfio queues   # one cell of the matrix, or some"
)]
pub struct Args {
    /// Skip everything that needs QEMU
    #[arg(long)]
    no_guest: bool,
    /// Time of the long soak, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    soak: u64,
    #[command(flatten)]
    choice: Choice,
}

pub fn main(args: &Args) -> Result<ExitCode> {
    if let Some(word) = args.choice.mode.iter().find(|word| !modes::is_known(word)) {
        let names = modes::names().chain(BOOTS.iter().map(|boot| boot.name)).collect::<Vec<_>>();
        bail!("unknown mode or boot {word}; use {}", names.join(", "));
    }
    let strict = is_ci();
    let workspace = Workspace::find()?;
    let mut run = Run {
        choice: &args.choice,
        workspace,
        strict,
        rows: Vec::new(),
        tools: Vec::new(),
        fio: None,
        c_programs: Vec::new(),
    };
    warn_of_small_disk(&run.workspace)?;
    // Prepare first, so that a password is asked for at the start.
    let lab = if args.no_guest { None } else { Some(prepare()?) };
    let fio = needs_engine(&args.choice).then(fio::installed);
    let named = !args.choice.filter.is_empty();
    if args.choice.mode.is_empty() && named {
        steps(&mut run)?;
    }
    if !only_steps(&run) {
        if args.choice.mode.is_empty() {
            programs(&args.choice)?;
        }
        if let Some(found) = fio {
            engine(&mut run, found)?;
        }
        suites(&mut run, lab.as_ref(), args.soak, args.choice.mode.is_empty() && !named)?;
    }
    if run.rows.is_empty() {
        bail!("no suite or step has a name that contains {}", args.choice.filter.join(" or "));
    }
    print!("\n{}", row::table(&run.rows));
    println!("\n{}", matrix::matrix(&run.rows, modes::names()));
    let bad = run.rows.iter().filter(|row| row.problem.is_some()).count();
    println!("{} of {} failed", bad, run.rows.len());
    Ok(if bad == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Warns if the disk may fill up during the run: compilers, linkers and the guest would fail with unrelated messages.
fn warn_of_small_disk(workspace: &Workspace) -> Result<()> {
    std::fs::create_dir_all(&workspace.target)?;
    for directory in [workspace.target.clone(), std::env::temp_dir()] {
        let free = process::free_space(&directory)?;
        if free < WHOLE_RUN {
            let [free, needed] = [free, WHOLE_RUN].map(|bytes| bytes >> 20);
            let place = directory.display();
            log!(
                "{place} has {free} MiB left; a whole run without a previous build takes up to {needed} MiB"
            );
        }
    }
    Ok(())
}

/// Returns true if each word of the filter is the name of a step that has run: then no suite is built.
fn only_steps(run: &Run<'_>) -> bool {
    let filter = &run.choice.filter;
    !filter.is_empty() && filter.iter().all(|word| run.rows.iter().any(|row| row.name == *word))
}

/// Builds the suites and runs them, on this machine and in the guest at the same time; with `with_steps` the
/// steps as well.
fn suites(run: &mut Run<'_>, lab: Option<&Lab>, soak: u64, with_steps: bool) -> Result<()> {
    let executables = build(run, lab.is_some())?;
    if lab.is_none() {
        log!("skipping the guest's suites (--no-guest)");
    }
    let parts = Mutex::new(parts());
    let (mut one, mut two, mut three) = (run.beside(), run.beside(), run.beside());
    let (here, one, two, three) = thread::scope(|scope| {
        let [one, two] = [&mut one, &mut two].map(|run| {
            lab.map(|lab| {
                let (parts, executables) = (&parts, &executables);
                scope.spawn(move || {
                    told(in_guest(run, lab, parts, executables)).map(|()| mem::take(&mut run.rows))
                })
            })
        });
        let three = with_steps.then(|| scope.spawn(|| told(steps(&mut three)).map(|()| three.rows)));
        let mut here = host::run(run, &executables);
        if run.choice.mode.is_empty() {
            here = here.and_then(|()| run.step(soak::NAME, |workspace| soak::check(workspace, soak)));
        }
        let rows = |lane: Option<thread::ScopedJoinHandle<'_, Result<Vec<Row>>>>| {
            lane.map_or_else(
                || Ok(Vec::new()),
                |lane| lane.join().expect("a lane that panicked has said why"),
            )
        };
        (told(here), rows(one), rows(two), rows(three))
    });
    here?;
    run.rows.append(&mut one?);
    run.rows.append(&mut two?);
    run.rows.append(&mut three?);
    Ok(())
}

/// A part of what the guest has to do.
enum Part {
    Boot(&'static Boot),
    Linux,
}

/// Returns all parts, the longest first, so that two threads end at about the same time.
fn parts() -> impl Iterator<Item = Part> {
    let (long, short) = BOOTS.split_at(2);
    long.iter().map(Part::Boot).chain([Part::Linux]).chain(short.iter().map(Part::Boot))
}

/// Works off the parts that no other thread has taken.
fn in_guest(
    run: &mut Run<'_>,
    lab: &Lab,
    parts: &Mutex<impl Iterator<Item = Part>>,
    executables: &[Executable],
) -> Result<()> {
    loop {
        let part = parts.lock().unwrap_or_else(PoisonError::into_inner).next();
        match part {
            Some(Part::Boot(boot)) => boot::run(run, lab, boot, executables)?,
            Some(Part::Linux) => linux::run(run, lab)?,
            None => return Ok(()),
        }
    }
}

/// Tells of an error of a thread at once; the run ends by it once the others have ended.
fn told(result: Result<()>) -> Result<()> {
    result.inspect_err(|error| log!("error: {error:#}"))
}

/// Runs the steps that start no device.
fn steps(run: &mut Run<'_>) -> Result<()> {
    run.step("format", |workspace| process::run(&mut workspace.cargo(&["fmt", "--all", "--check"])))?;
    let clippy = ["clippy", "--quiet", "--workspace", "--all-targets", "--", "-D", "warnings"];
    run.step("clippy", |workspace| process::run(&mut workspace.cargo(&clippy)))?;
    let docs = [&["doc", "--quiet", "--no-deps"][..], &LIBRARIES].concat();
    run.step("docs", |workspace| process::run(workspace.cargo(&docs).env("RUSTDOCFLAGS", "-D warnings")))?;
    step_with(run, "aarch64", &AARCH64, |workspace| {
        process::run(workspace.cargo(&["check", "--quiet", "--target", AARCH64.name]).args(LIBRARIES))
    })?;
    step_with(run, "msrv", &MSRV, |workspace| {
        let mut command = Command::new("rustup");
        command.args(["run", MSRV.name, "cargo", "check", "--quiet"]).args(LIBRARIES);
        command.current_dir(&workspace.root).env("CARGO_TARGET_DIR", workspace.target.join("msrv"));
        process::run(&mut command)
    })?;
    run.step("features", features)?;
    run.step("layers", layers::check)?;
    run.step("words", words::check)?;
    run.step("examples", examples::check)?;
    run.step("package", package::check)?;
    run.step("licences", licences::check)?;
    run.step("simulation", simulation::check)?;
    run.step("planted", |workspace| planted::check(workspace, &[]))?;
    // Both steps support x86-64 only.
    if cfg!(target_arch = "x86_64") {
        run.step("instructions", |workspace| instructions::check(workspace, false))?;
        run.step("assembly", assembly::check)?;
    }
    Ok(())
}

/// Runs a step that needs a part of Rust. Where the part is missing, CI installs it by rustup, and fails the step without
/// it; a run by hand skips the step.
fn step_with(
    run: &mut Run<'_>,
    name: &str,
    part: &RustPart,
    work: impl FnOnce(&Workspace) -> Result<()>,
) -> Result<()> {
    let list = process::output(Command::new("rustup").args(part.list)).unwrap_or_default();
    // The name of a toolchain goes on with its architecture.
    let is_there = list.lines().any(|line| {
        line.strip_prefix(part.name).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
    });
    let install = part.install.join(" ");
    if !is_there && !run.strict {
        if run.choice.wants(name) {
            log!("skipping {name}: {} is missing (`rustup {install}`)", part.name);
        }
        return Ok(());
    }
    run.step(name, |workspace| {
        if !is_there {
            log!("rustup {install}");
            let mut command = Command::new("rustup");
            process::run(command.args(part.install).current_dir(&workspace.root))?;
        }
        work(workspace)
    })
}

/// Builds the libraries with the sets of features that make sense; all of them together are built by every other step. Runs
/// the tests of what is refused without features.
fn features(workspace: &Workspace) -> Result<()> {
    let sets = [
        ("upcie-core", &["", "bind", "uio", "vfio-user-client", "vfio-user-server", "bind,uio"][..]),
        ("upcie-nvme", &["", "vfio-user", "bind,uio", "emu", "fault-files", "serde", "async"]),
    ];
    for (package, sets) in sets {
        for set in sets {
            let clippy =
                ["clippy", "--quiet", "--package", package, "--no-default-features", "--features", set];
            process::run(workspace.cargo(&clippy).args(["--", "-D", "warnings"]))?;
        }
        let test = ["test", "--quiet", "--package", package, "--no-default-features", "--test", "left_out"];
        process::run(&mut workspace.cargo(&test))?;
    }
    Ok(())
}

/// Returns true if a wanted suite runs fio.
fn needs_engine(choice: &Choice) -> bool {
    let host = choice.mode.is_empty() && choice.wants(HOST_FIO);
    host || FIO_SUITES.iter().any(|suite| choice.wants(suite) && modes::any_takes(suite, &choice.mode))
}

/// Installs the programs that the suites of the C interface and of the Python package need, if they are missing.
fn programs(choice: &Choice) -> Result<()> {
    let needed = PROGRAMS.iter().filter(|(suites, ..)| suites.iter().any(|suite| choice.wants(suite)));
    let missing =
        needed.filter(|(_, probe, _)| process::output(Command::new(probe[0]).args(&probe[1..])).is_err());
    let packages: Vec<_> = missing.map(|(.., package)| *package).collect();
    if packages.is_empty() {
        return Ok(());
    }
    match install::packages(&packages, "the tests of the C interface and of the Python package need") {
        // Where a package can't be installed, the suite says what it lacks.
        Err(error) if !is_ci() => log!("{error:#}"),
        installed => return installed,
    }
    Ok(())
}

/// Builds fio's engine, which its suites need.
fn engine(run: &mut Run<'_>, found: Result<fio::Found>) -> Result<()> {
    let started = Instant::now();
    match found.and_then(|found| fio::build(&run.workspace, &found)) {
        Ok(built) => run.fio = Some(built),
        Err(error) if run.strict => {
            let problem = Some(format!("{error:#}"));
            run.push(Row::step("fio's engine", "host", started.elapsed(), problem));
        }
        Err(error) => log!("skipping fio's suites: {error:#}"),
    }
    process::check_interrupt()
}

fn build(run: &mut Run<'_>, with_guest: bool) -> Result<Vec<Executable>> {
    log!("building the tools and the tests");
    run.tools = run.workspace.build_tools(false)?;
    // The suites with Linux's driver need no test programs.
    if !run.choice.mode.is_empty() && !modes::needs_suites(&run.choice.mode) {
        return Ok(Vec::new());
    }
    let c_programs = with_guest && needs_c_programs(run.choice);
    let Choice { mode, filter, .. } = run.choice;
    let mut arguments = vec!["test", "--quiet", "--no-run"];
    // A mode of the matrix needs only the suites, and of these only the wanted ones.
    let named = run.workspace.tests(SUITES, filter);
    match (mode.is_empty(), c_programs) {
        (true, _) => arguments.push("--workspace"),
        (false, _) if named.is_empty() && !filter.is_empty() => return Ok(Vec::new()),
        (false, false) => arguments.extend(["--package", SUITES]),
        // cargo takes tests by name from all packages that it builds, so here it builds all of them.
        (false, true) => arguments.extend(["--package", SUITES, "--package", c_programs::PACKAGE]),
    }
    if !mode.is_empty() && !c_programs {
        named.iter().for_each(|name| arguments.extend(["--test", name]));
    }
    let executables = run.workspace.build(&arguments)?;
    if c_programs {
        // Cargo puts a library that tests need beside the tests, or above.
        let bin = run.workspace.bin(false);
        run.c_programs = c_programs::build(&run.workspace, &[bin.join("deps"), bin])?;
    }
    Ok(executables)
}

/// Returns true if a wanted suite starts C programs.
fn needs_c_programs(choice: &Choice) -> bool {
    let is_named = |suite: &str| {
        let boot = BOOTS.iter().find(|boot| boot.owns(suite));
        boot.is_some_and(|boot| choice.mode.iter().any(|word| word == boot.name))
    };
    c_programs::SUITES.iter().any(|suite| choice.wants(suite) && (choice.mode.is_empty() || is_named(suite)))
}

//! `cargo xtask guest`, and running jobs in the guest for whoever has some.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::cargo::Workspace;
use crate::lab::initrd::Archive;
use crate::lab::kernel::{self, Lab};
use crate::lab::qemu::{EDU, FUNCTIONS, Iommu, Machine, Options, RunDirectory};
use crate::lab::shell;
use crate::process::{self, Tail, read, say};

const INIT: &str = include_str!("../../../../tests/guest/init");
/// Until init's first line: 5 s on an idle machine, 40 s on a busy one.
const BOOT: Duration = Duration::from_secs(120);
/// Where programs are in the guest.
pub const BIN: &str = "/payload/bin";

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  cargo xtask guest -- upcie list\n  cargo xtask guest --user -- upcie perf 0000:01:00.0 --time 2\n  cargo xtask guest --shell\n  cargo xtask guest --iommu off --numa 2 -- dmesg\n\nExit code: the command's own; 1 when the guest could not run it."
)]
pub struct Args {
    /// Only prepare the guest: packages, kernel modules, base archive
    #[arg(long, conflicts_with_all = ["shell", "command"])]
    prepare: bool,
    /// A prompt in the guest, on this terminal; `exit` ends it, Ctrl-] kills it
    #[arg(long, conflicts_with = "command")]
    shell: bool,
    /// Run as a plain user (uid 1000) who owns the VFIO nodes, instead of as root
    #[arg(long)]
    user: bool,
    /// Take a program along, with its libraries; it is on the guest's PATH (repeatable)
    #[arg(long, value_name = "FILE")]
    with: Vec<PathBuf>,
    /// Give up after so many seconds
    #[arg(long, default_value_t = 1800, value_name = "SECONDS")]
    timeout: u64,
    #[command(flatten)]
    options: Options,
    /// Command to run in the guest, with the tools and BusyBox on its PATH and nothing on its stdin
    #[arg(last = true, required_unless_present_any = ["prepare", "shell"])]
    command: Vec<String>,
}

pub fn main(args: &Args) -> Result<ExitCode> {
    let lab = kernel::prepare()?;
    if args.prepare {
        return Ok(ExitCode::SUCCESS);
    }
    let workspace = Workspace::find()?;
    let mut payload = Payload::new(args.user, args.options.iommu);
    for program in workspace.build_tools(true)? {
        payload.add_program(&program)?;
    }
    for program in &args.with {
        payload.add_program(program)?;
    }
    if args.shell {
        return shell::run(&lab, &args.options, payload);
    }
    let words: Vec<_> = args.command.iter().map(|word| quote(word)).collect();
    let mut job = Job::new("command", format!("exec {}", words.join(" ")));
    if args.user {
        job.user = "user";
    }
    let deadline = Duration::from_secs(args.timeout);
    let results = run(&lab, &args.options, payload, &[job], deadline, true, &mut |_, _| {})?;
    let code = results.jobs.first().map_or(1, |result| result.code);
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)))
}

/// A word as the guest's shell takes it literally.
pub fn quote(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./:=,+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// What goes into the guest beside the base: init, programs and their libraries.
#[derive(Debug)]
pub struct Payload {
    archive: Archive,
}

impl Payload {
    /// For a guest without the lab's controllers, whose kernel drives what it finds.
    pub fn plain() -> Self {
        let mut archive = Archive::default();
        archive.add("init", true, INIT);
        archive.add("payload/env", false, "export LAB_USER=root LAB_FUNCTIONS= LAB_DRIVER=\n");
        Self { archive }
    }

    pub fn new(plain_user: bool, iommu: Iommu) -> Self {
        let mut archive = Archive::default();
        archive.add("init", true, INIT);
        let environment = [
            ("LAB_USER", if plain_user { "user" } else { "root" }),
            ("LAB_FUNCTIONS", &FUNCTIONS.join(" ")),
            // Without the IOMMU vfio-pci takes no function until that is asked for.
            ("LAB_DRIVER", if iommu == Iommu::Off { "" } else { "vfio-pci" }),
            ("UPCIE_GUEST", "1"),
            ("UPCIE_BIN", BIN),
            ("UPCIE_TEST_DEVICES", &FUNCTIONS.join(",")),
            ("UPCIE_TEST_EDU", EDU),
            // Two tests of a suite can't have one device.
            ("RUST_TEST_THREADS", "1"),
            ("RUST_BACKTRACE", "1"),
        ];
        let lines = environment.map(|(name, value)| format!("export {name}={}\n", quote(value)));
        archive.add("payload/env", false, lines.concat());
        Self { archive }
    }

    pub fn add(&mut self, path: &str, text: &str) {
        self.archive.add(path, false, text);
    }

    /// Adds a program of this machine under its own name, without its debug information, with its libraries.
    pub fn add_program(&mut self, program: &Path) -> Result<()> {
        let name = program.file_name().context("a program is a file")?.to_string_lossy();
        self.add_program_as(program, &name)
    }

    pub fn add_program_as(&mut self, program: &Path, name: &str) -> Result<()> {
        let stripped = std::env::temp_dir().join(format!("upcie-strip-{}", std::process::id()));
        let strip = process::output(Command::new("strip").arg("-g").arg(program).arg("-o").arg(&stripped));
        // A script, or what strip doesn't know, goes as it is.
        let from = if strip.is_ok() { stripped.as_path() } else { program };
        let added = self.archive.add_file(&format!("{BIN}/{name}"), true, from);
        let _ = fs::remove_file(&stripped);
        added?;
        self.add_libraries_of(program)
    }

    /// Adds a library of this machine that programs load by its path, with its own libraries.
    pub fn add_library(&mut self, library: &Path, path: &str) -> Result<()> {
        self.archive.add_file(path, true, library)?;
        self.add_libraries_of(library)
    }

    fn add_libraries_of(&mut self, program: &Path) -> Result<()> {
        // Fails for what isn't dynamic.
        let libraries = process::output(Command::new("ldd").arg(program)).unwrap_or_default();
        for library in libraries.split_whitespace().filter(|word| word.starts_with('/')) {
            if !self.archive.contains(library) {
                self.archive.add_file(library, true, Path::new(library))?;
            }
        }
        Ok(())
    }

    /// Writes the whole initramfs: the base, then this.
    pub fn write_initrd(&self, lab: &Lab, stock: bool, path: &Path) -> Result<()> {
        let mut out = BufWriter::new(File::create(path)?);
        std::io::copy(&mut File::open(if stock { &lab.stock } else { &lab.base })?, &mut out)?;
        self.archive.write(&mut out)?;
        Ok(out.flush()?)
    }
}

/// Something for the guest's shell to run.
#[derive(Debug)]
pub struct Job {
    pub name: String,
    pub script: String,
    /// Run by root first; init's functions can be called. The job fails where this does.
    pub setup: String,
    /// Who runs the script: `root` or `user`.
    pub user: &'static str,
    /// Limit of locked memory, KiB; the kernel's own (8 MiB) if none.
    pub memlock: Option<u32>,
}

impl Job {
    /// A job of root's without a setup.
    pub fn new(name: impl Into<String>, script: impl Into<String>) -> Self {
        Self { name: name.into(), script: script.into(), setup: String::new(), user: "root", memlock: None }
    }
}

/// How a job ended.
#[derive(Debug)]
pub struct JobResult {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
    pub time: Duration,
    /// What it did not give back, or left running.
    pub leaked: Option<String>,
}

/// How a whole run ended.
#[derive(Debug)]
pub struct Results {
    pub jobs: Vec<JobResult>,
    /// The kernel's log.
    pub dmesg: String,
}

/// Boots the guest, runs the jobs one after the other, each within its deadline, and powers off.
/// With `stream` their stdout and stderr are passed on as they come.
pub fn run(
    lab: &Lab,
    options: &Options,
    mut payload: Payload,
    jobs: &[Job],
    deadline: Duration,
    stream: bool,
    done: &mut dyn FnMut(&Job, &JobResult),
) -> Result<Results> {
    for (index, job) in jobs.iter().enumerate() {
        let directory = format!("payload/jobs/{index:03}");
        payload.add(&format!("{directory}/run"), &format!("{}\n", job.script));
        payload.add(&format!("{directory}/setup"), &format!("{}\n", job.setup));
        let memlock = job.memlock.map_or_else(String::new, |limit| limit.to_string());
        payload.add(&format!("{directory}/who"), &format!("user={}\nmemlock={memlock}\n", job.user));
    }
    let (run, mut machine) = boot(lab, options, &payload, false, BOOT)?;
    let mut results = Vec::new();
    for (index, job) in jobs.iter().enumerate() {
        let result = follow(&run, &mut machine, index, deadline, stream)
            .with_context(|| format!("in the guest, `{}`", job.name))?;
        done(job, &result);
        results.push(result);
    }
    // Power-off is the kernel's to finish; everything of value is on the share by now.
    let started = Instant::now();
    while !machine.has_ended()? && started.elapsed() < Duration::from_secs(30) {
        process::check_interrupt()?;
        std::thread::sleep(process::POLL);
    }
    let dmesg = read(&run.out("dmesg"));
    Ok(Results { jobs: results, dmesg })
}

/// Starts the guest and waits for init's first line; one more try if that never comes.
pub fn boot(
    lab: &Lab,
    options: &Options,
    payload: &Payload,
    interactive: bool,
    patience: Duration,
) -> Result<(RunDirectory, Machine)> {
    for attempt in 1.. {
        let run = RunDirectory::create()?;
        payload.write_initrd(lab, options.stock, &run.path("initrd"))?;
        let mut machine = Machine::start(lab, &run, options, interactive)?;
        let started = Instant::now();
        while machine.console().find("LAB-INIT").is_none() {
            process::check_interrupt()?;
            if machine.has_ended()? {
                bail!(
                    "QEMU ended before the guest was up:\n{}\n{}",
                    read(&run.path("qemu.stderr")).trim(),
                    machine.console().tail(20)
                );
            }
            if started.elapsed() > patience {
                break;
            }
            std::thread::sleep(process::POLL);
        }
        if machine.console().find("LAB-INIT").is_some() {
            return Ok((run, machine));
        }
        let tail = machine.console().tail(20);
        if attempt == 2 {
            bail!("the guest did not boot within {} s, twice; its console:\n{tail}", patience.as_secs());
        }
        say!("init's first line did not come within {} s; trying once more", patience.as_secs());
    }
    unreachable!("the loop ends by its second turn")
}

/// Whether the guest comes up at all, for choosing an accelerator.
pub fn boots(lab: &Lab) -> bool {
    let ready = || -> Result<bool> {
        let run = RunDirectory::create()?;
        Payload::new(false, Iommu::On).write_initrd(lab, false, &run.path("initrd"))?;
        let mut machine = Machine::start(lab, &run, &Options::default(), false)?;
        let started = Instant::now();
        while started.elapsed() < Duration::from_secs(15) && !machine.has_ended()? {
            process::check_interrupt()?;
            if machine.console().find("LAB-READY").is_some() {
                return Ok(true);
            }
            std::thread::sleep(process::POLL);
        }
        Ok(false)
    };
    ready().unwrap_or(false)
}

/// Waits for a job's end, passing its output on.
fn follow(
    run: &RunDirectory,
    machine: &mut Machine,
    index: usize,
    deadline: Duration,
    stream: bool,
) -> Result<JobResult> {
    let file = |kind: &str| run.out(&format!("{index:03}.{kind}"));
    let mut started = Instant::now();
    let (mut running, mut ended) = (false, false);
    let mut stdout = Tail::new(file("stdout"));
    let mut stderr = Tail::new(file("stderr"));
    loop {
        // In this order: what was written before the end is there once the end is seen.
        let last_look = ended;
        ended = machine.has_ended()?;
        let code = fs::read_to_string(file("code")).ok();
        if !running && file("stdout").exists() {
            (running, started) = (true, Instant::now());
        }
        if stream {
            stdout.pass_on(&mut std::io::stdout().lock());
            stderr.pass_on(&mut std::io::stderr().lock());
        }
        if let Some(code) = code {
            let code = code.trim().parse().context("an exit code")?;
            let (stdout, stderr) = (read(&file("stdout")), read(&file("stderr")));
            let leaked = Some(read(&file("leak"))).filter(|text| !text.is_empty());
            return Ok(JobResult { code, stdout, stderr, time: started.elapsed(), leaked });
        }
        let context = || {
            let printed =
                if stream { String::new() } else { [read(&file("stdout")), read(&file("stderr"))].concat() };
            format!("{}\nthe end of its console:\n{}", printed.trim_end(), machine.console().tail(30))
        };
        if last_look {
            bail!("the guest went down before the command ended\n{}", context());
        }
        if started.elapsed() > deadline {
            bail!("no end within {} s; the guest was killed\n{}", deadline.as_secs(), context());
        }
        process::check_interrupt()?;
        std::thread::sleep(process::POLL);
    }
}

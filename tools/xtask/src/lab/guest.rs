//! Runs jobs in the guest, one after the other, and returns their output.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::lab::kernel::Lab;
use crate::lab::payload::Payload;
use crate::lab::qemu::{Iommu, Machine, Options};
use crate::lab::run_directory::RunDirectory;
use crate::process::{self, Tail, log, read};

/// Deadline of init's first line: it takes 5 s on an idle machine, 40 s on a busy one.
const BOOT: Duration = Duration::from_secs(120);

/// A script for the guest's shell.
#[derive(Debug)]
pub struct Job {
    pub name: String,
    pub script: String,
    /// Script that root runs first; it can call init's functions. If it fails, the job fails.
    pub setup: String,
    /// User who runs the script: `root` or `user`.
    pub user: &'static str,
    /// Limit of locked memory in KiB; `None` for the kernel's default (8 MiB).
    pub memlock: Option<u32>,
}

impl Job {
    /// Makes a job for root without a setup.
    pub fn new(name: impl Into<String>, script: impl Into<String>) -> Self {
        Self { name: name.into(), script: script.into(), setup: String::new(), user: "root", memlock: None }
    }
}

/// Result of a job.
#[derive(Debug)]
pub struct JobResult {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
    pub time: Duration,
    /// Resources that the job did not free, and processes that it left running.
    pub leaked: Option<String>,
}

/// Results of a whole run.
#[derive(Debug)]
pub struct Results {
    pub jobs: Vec<JobResult>,
    /// Log of the kernel.
    pub dmesg: String,
}

/// Boots the guest, runs the jobs one after the other, each within its deadline, and powers off. With
/// `stream` their stdout and stderr are passed on at once.
pub fn run(
    lab: &Lab,
    options: &Options,
    mut payload: Payload,
    jobs: &[Job],
    deadline: Duration,
    stream: bool,
    done: &mut dyn FnMut(&Job, &JobResult),
) -> Result<Results> {
    add(&mut payload, jobs);
    let (run, mut machine) = boot(lab, options, &payload, false, BOOT)?;
    let mut results = Vec::new();
    for (index, job) in jobs.iter().enumerate() {
        let result = follow(&run, &mut machine, index, deadline, stream)
            .with_context(|| format!("in the guest, `{}`", job.name))?;
        done(job, &result);
        results.push(result);
    }
    // The kernel powers off by itself; all results are on the share already.
    let started = Instant::now();
    while !machine.has_ended()? && started.elapsed() < Duration::from_secs(30) {
        process::check_interrupt()?;
        std::thread::sleep(process::POLL);
    }
    let dmesg = read(&run.out("dmesg"));
    Ok(Results { jobs: results, dmesg })
}

/// Boots the guest and runs a job that has no end, until its output is `enough`. Then calls `cut`, kills the guest as a power cut
/// would, and returns the output.
pub fn run_until(
    lab: &Lab,
    options: &Options,
    mut payload: Payload,
    job: Job,
    deadline: Duration,
    enough: &dyn Fn(&str) -> bool,
    cut: impl FnOnce(),
) -> Result<String> {
    add(&mut payload, &[job]);
    let (run, mut machine) = boot(lab, options, &payload, false, BOOT)?;
    let started = Instant::now();
    let output = || read(&run.out("000.stdout"));
    while !enough(&output()) {
        process::check_interrupt()?;
        if machine.has_ended()? || run.out("000.code").exists() || started.elapsed() > deadline {
            bail!(
                "the job ended, or printed too little within {} s:\n{}{}\n{}",
                deadline.as_secs(),
                output(),
                read(&run.out("000.stderr")),
                machine.console().tail(30)
            );
        }
        std::thread::sleep(process::POLL);
    }
    cut();
    drop(machine);
    Ok(output())
}

/// Adds jobs to a payload.
fn add(payload: &mut Payload, jobs: &[Job]) {
    for (index, job) in jobs.iter().enumerate() {
        let directory = format!("payload/jobs/{index:03}");
        payload.add(&format!("{directory}/run"), &format!("{}\n", job.script));
        payload.add(&format!("{directory}/setup"), &format!("{}\n", job.setup));
        let memlock = job.memlock.map_or_else(String::new, |limit| limit.to_string());
        payload.add(&format!("{directory}/who"), &format!("user={}\nmemlock={memlock}\n", job.user));
    }
}

/// Starts the guest, and waits for init's first line; tries once more if it does not come.
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
                    "QEMU exited before the guest had booted:\n{}\n{}",
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
        log!("init did not start within {} s; trying once more", patience.as_secs());
    }
    unreachable!("the loop ends in its second turn")
}

/// Returns true if the guest boots, to choose an accelerator.
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

/// Waits for the end of a job, and passes its output on.
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
        // Check for the end first, then read: all output that was written before the end is read.
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
            if code.trim().is_empty() {
                let directory = run.out("");
                bail!(
                    "the guest could not write the command's exit code to {}, which has {} MiB left",
                    directory.display(),
                    process::free_space(&directory)? >> 20
                );
            }
            let code = code.trim().parse().context("an exit code")?;
            let (stdout, stderr) = (read(&file("stdout")), read(&file("stderr")));
            let leaked = Some(read(&file("leak"))).filter(|text| !text.is_empty());
            return Ok(JobResult { code, stdout, stderr, time: started.elapsed(), leaked });
        }
        let context = || {
            let printed =
                if stream { String::new() } else { [read(&file("stdout")), read(&file("stderr"))].concat() };
            format!("{}\nthe end of the guest's console:\n{}", printed.trim_end(), machine.console().tail(30))
        };
        if last_look {
            let context = context();
            let errors = read(&run.path("qemu.stderr"));
            bail!(
                "the guest went down before the command ended: {}\n{}\n{context}",
                machine.ending(),
                errors.trim()
            );
        }
        if started.elapsed() > deadline {
            bail!(
                "the command did not end within {} s; the guest was killed\n{}",
                deadline.as_secs(),
                context()
            );
        }
        process::check_interrupt()?;
        std::thread::sleep(process::POLL);
    }
}

//! The benches `fio/…`: our engine in fio, compared with fio's null engine on this machine, and with the
//! kernel's driver and io_uring in the guest, where both use the same QEMU controller.
//!
//! Rounds are interleaved: each side runs once per round.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::bench::entry::{Better, Entry, median};
use crate::cargo::Workspace;
use crate::lab::devices::FUNCTIONS;
use crate::lab::fio::{self, Built, GUEST_ENGINE};
use crate::lab::guest::{self, Job};
use crate::lab::payload::Payload;
use crate::lab::prepare::prepare;
use crate::lab::qemu::Options;
use crate::process::{self, Guard, log};

const ROUNDS: usize = 5;
/// A round takes a minute under emulation.
const GUEST_ROUNDS: usize = 3;
const SECONDS: u32 = 1;
/// Largest number of runs until one is undisturbed.
const TRIES: u32 = 5;
/// Options of both sides.
const COMMON: &str =
    "--name=bench --thread=1 --norandommap --randrepeat=0 --time_based --gtod_reduce=1 --output-format=json";
/// Options for a depth above 1: submit and reap in batches.
const BATCHES: &str =
    "--iodepth_batch_submit=16 --iodepth_batch_complete_min=1 --iodepth_batch_complete_max=16";
/// Fastest options of the kernel's driver: polling, registered buffers and files.
const REGISTERED: &str = "--hipri --fixedbufs --registerfiles";

/// Names, block sizes and depths of the cases.
const SHAPES: &[(&str, &str, u32)] = &[("4k_qd1", "4k", 1), ("4k_qd32", "4k", 32), ("512_qd128", "512", 128)];

/// Sides of a comparison: the name, and the options besides those of the case.
type Sides<'a> = Vec<(&'a str, String)>;

/// Runs the cases whose name contains the filter.
pub fn run(workspace: &Workspace, filter: Option<&str>) -> Result<Vec<Entry>> {
    let wanted = |name: &str| filter.is_none_or(|filter| name.contains(filter));
    let host: Vec<_> =
        cases("fio/null", &["randread"]).into_iter().filter(|case| wanted(&case.name)).collect();
    let guest = cases("fio/kernel", &["randread", "randwrite"]);
    let guest: Vec<_> = guest.into_iter().filter(|case| wanted(&case.name)).collect();
    if host.is_empty() && guest.is_empty() {
        return Ok(Vec::new());
    }
    let built = fio::build(workspace, &fio::installed()?)?;
    let mut entries = Vec::new();
    if !host.is_empty() {
        entries.extend(against_null(workspace, &built, &host)?);
    }
    if !guest.is_empty() {
        entries.extend(against_kernel(&built, &guest)?);
    }
    Ok(entries)
}

/// A workload, which becomes an entry of the summary.
struct Case {
    name: String,
    options: String,
    /// True if the depth allows batches.
    deep: bool,
}

fn cases(prefix: &str, directions: &[&str]) -> Vec<Case> {
    let all = directions.iter().flat_map(|rw| SHAPES.iter().map(move |shape| (rw, shape)));
    let case = |(rw, &(shape, bs, depth)): (&&str, &(&str, &str, u32))| Case {
        name: format!("{prefix}_{rw}_{shape}"),
        options: format!("--rw={rw} --bs={bs} --iodepth={depth}"),
        deep: depth > 1,
    };
    all.map(case).collect()
}

/// Compares our engine on `nvme-emu`, a separate process that moves no data, with fio's null engine.
fn against_null(workspace: &Workspace, built: &Built, cases: &[Case]) -> Result<Vec<Entry>> {
    workspace.build_tools(true)?;
    let socket = std::env::temp_dir().join(format!("upcie-bench-{}", std::process::id()));
    let mut server = Command::new(workspace.bin(true).join("nvme-emu"));
    server.arg("--socket").arg(&socket).args(["--options", "null=true,size=1G"]);
    let mut server = Guard(server.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("nvme-emu")?);
    let mut line = String::new();
    BufReader::new(server.0.stdout.take().context("piped")?).read_line(&mut line)?;
    if !line.contains("listening") {
        bail!("nvme-emu did not start to listen: {line}");
    }
    let ours =
        format!("--ioengine=external:{} --filename=vfio-user\\:{}", built.engine.display(), socket.display());
    let sides = vec![("ours", ours), ("null", "--ioengine=null --size=1G".to_owned())];
    let mut results = Results::default();
    for round in 1..=ROUNDS {
        log!("fio against its null engine: round {round} of {ROUNDS}");
        for case in cases {
            for (side, options) in &sides {
                let text = undisturbed(built, &line_of(case, options), server.0.id())?;
                results.add(case, side, &text)?;
            }
        }
    }
    drop(server);
    let _ = fs::remove_file(&socket);
    results.entries(cases, &["null"])
}

/// Runs fio until both it and the server had their cores to themselves, or the tries are used up.
fn undisturbed(built: &Built, line: &str, server: u32) -> Result<String> {
    let mut tries = 0;
    loop {
        tries += 1;
        let before = run_delay(server)?;
        let mut command = Command::new(&built.fio);
        let text = process::output(command.args(line.split_whitespace()))?;
        let waited = run_delay(server)?.saturating_sub(before);
        let value: Value = serde_json::from_str(&text).with_context(|| text.clone())?;
        let job = &value["jobs"][0];
        let busy = job["usr_cpu"].as_f64().unwrap_or_default() + job["sys_cpu"].as_f64().unwrap_or_default();
        if tries == TRIES || (busy > 95.0 && waited < Duration::from_secs(SECONDS.into()) / 20) {
            return Ok(text);
        }
        process::check_interrupt()?;
    }
}

/// Returns the time that a process's threads have waited for a core (second field of schedstat, ns).
fn run_delay(process: u32) -> Result<Duration> {
    let mut sum = 0;
    for task in fs::read_dir(format!("/proc/{process}/task"))? {
        let text = fs::read_to_string(task?.path().join("schedstat"))?;
        let waited = text.split_whitespace().nth(1).context("schedstat")?;
        sum += waited.parse::<u64>()?;
    }
    Ok(Duration::from_nanos(sum))
}

/// Makes the arguments of one case for one side.
fn line_of(case: &Case, side: &str) -> String {
    let batches = if case.deep { BATCHES } else { "" };
    format!("{COMMON} --runtime={SECONDS} {} {batches} {side}", case.options)
}

/// Compares our engine over VFIO with the kernel's driver on the same function.
fn against_kernel(built: &Built, cases: &[Case]) -> Result<Vec<Entry>> {
    let lab = prepare()?;
    let options = Options::default();
    let mut payload = Payload::new(false, options.iommu);
    payload.add_program(&built.fio)?;
    payload.add_library(&built.engine, GUEST_ENGINE)?;
    let function = FUNCTIONS[0];
    let dotted = function.replace(':', ".");
    // sysfs has the name of the disk once the kernel has found it.
    let disk = format!(
        "until disk=$(ls -d /sys/bus/pci/devices/{function}/nvme/nvme*/nvme*n1 2>/dev/null); do sleep 0.1; done; \
         disk=/dev/${{disk##*/}}; [ -b $disk ] || exit 1"
    );
    let kernel = "--ioengine=io_uring --direct=1 --size=64M --filename=$disk";
    let sides: Sides<'_> = vec![
        ("ours", format!("--ioengine=external:{GUEST_ENGINE} --size=64M --filename={dotted}")),
        ("io_uring", kernel.to_owned()),
        ("io_uring, registered", format!("{kernel} {REGISTERED}")),
    ];
    let mut jobs = Vec::new();
    for _ in 0..GUEST_ROUNDS {
        for (side, options) in &sides {
            let lines = cases.iter().map(|case| {
                let plain = *side == "io_uring";
                let line = line_of(case, options);
                // The plain side runs without batches, as most users run it.
                let line = if plain { line.replace(BATCHES, "") } else { line };
                format!("fio {line}")
            });
            let lines = lines.collect::<Vec<_>>().join(" &&\n");
            let ours = *side == "ours";
            let script = if ours { lines } else { format!("{disk}\n{lines}") };
            let setup = if ours {
                "bind vfio-pci".to_owned()
            } else {
                // Polled queues must be requested; multipathing would hide the function's disk.
                "bind && rmmod nvme && rmmod nvme_core && insmod /modules/nvme-core.ko multipath=N && \
                 insmod /modules/nvme.ko poll_queues=2 && bind nvme"
                    .to_owned()
            };
            jobs.push(Job { setup, ..Job::new(*side, script) });
        }
    }
    let per_job = Duration::from_secs(60 + 30 * cases.len() as u64);
    log!("fio in the guest against the kernel's driver: {GUEST_ROUNDS} rounds of about a minute");
    let done = guest::run(&lab, &options, payload, &jobs, per_job, false, &mut |job, result| {
        log!("{}: {:.0} s", job.name, result.time.as_secs_f64());
    })?;
    let mut results = Results::default();
    for (job, result) in jobs.iter().zip(&done.jobs) {
        if result.code != 0 {
            bail!("fio in the guest ({}) failed:\n{}{}", job.name, result.stdout, result.stderr);
        }
        let mut texts = serde_json::Deserializer::from_str(&result.stdout).into_iter::<Value>();
        for case in cases {
            let value =
                texts.next().with_context(|| format!("{}: no result: {}", case.name, result.stdout))??;
            results.add_value(case, &job.name, &value)?;
        }
    }
    results.entries(cases, &["io_uring", "io_uring, registered"])
}

/// IOPS by case and side, one number per round.
#[derive(Default)]
struct Results(BTreeMap<(String, String), Vec<f64>>);

impl Results {
    fn add(&mut self, case: &Case, side: &str, json: &str) -> Result<()> {
        let value = serde_json::from_str(json).with_context(|| format!("{}, {side}: {json}", case.name))?;
        self.add_value(case, side, &value)
    }

    fn add_value(&mut self, case: &Case, side: &str, value: &Value) -> Result<()> {
        let job = &value["jobs"][0];
        let iops = ["read", "write"].iter().filter_map(|kind| job[kind]["iops"].as_f64()).sum::<f64>();
        if job["error"] != 0 || iops <= 0.0 {
            bail!("{}, {side}: {job}", case.name);
        }
        self.0.entry((case.name.clone(), side.to_owned())).or_default().push(iops);
        Ok(())
    }

    /// Makes the entries: our engine against the best of `theirs`.
    fn entries(&self, cases: &[Case], theirs: &[&str]) -> Result<Vec<Entry>> {
        let of = |case: &Case, side: &str| -> Result<Vec<f64>> {
            let mut values = self.0.get(&(case.name.clone(), side.to_owned())).cloned().unwrap_or_default();
            values.sort_by(f64::total_cmp);
            if values.is_empty() { bail!("{}: no result of {side}", case.name) } else { Ok(values) }
        };
        cases
            .iter()
            .map(|case| {
                let mut ours = of(case, "ours")?;
                let mut best: f64 = 0.0;
                for side in theirs {
                    let value = median(&mut of(case, side)?).unwrap_or_default();
                    log!("{}: {side}: {value:.0} IOPS", case.name);
                    best = best.max(value);
                }
                let middle = median(&mut ours).unwrap_or_default();
                Ok(Entry {
                    name: case.name.clone(),
                    unit: "IOPS".to_owned(),
                    better: Better::Higher,
                    ours: middle,
                    theirs: Some(best),
                    ratio: Some(middle / best),
                    spread: (ours[ours.len() - 1] - ours[0]) / 2.0 / middle,
                    runs: u32::try_from(ours.len())?,
                })
            })
            .collect()
    }
}

//! The supervisor: starts the server and the workers, kills them, and has all blocks checked at the end.

use super::{
    SoakArgs,
    load::Load,
    record::{Counts, Range, Record},
    worker::{Job, work},
};
use crate::{
    cli,
    guard::{check_any_order, check_unprotected},
    log,
    outcome::{self, Outcome},
    perf::random::{Rng, mix, scale},
    signal,
    target::{self, Target},
    units,
};
use anyhow::{Context, bail, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    env, fs,
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};
use upcie_nvme::Address;

/// Size of the tested range if none is given.
const LENGTH: u64 = 64 << 20;
/// Time between two looks at a child.
const LOOK: Duration = Duration::from_millis(10);
/// Time that a child has for an end that was asked for, beside the timeout of its commands.
const GRACE: Duration = Duration::from_secs(30);

/// Counts of a whole run.
#[derive(Debug, Default)]
pub struct Sum {
    pub counts: Counts,
    pub time: Duration,
    pub workers_killed: u64,
    pub servers_killed: u64,
}

/// A directory of this run, removed when dropped.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A process that is killed when dropped.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only if the process has ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs the soak.
pub fn run(args: &SoakArgs) -> anyhow::Result<(Sum, Outcome)> {
    let scratch = Scratch(env::temp_dir().join(format!("upcie-soak-{}", std::process::id())));
    fs::create_dir(&scratch.0).with_context(|| format!("creating {}", scratch.0.display()))?;
    let medium = medium(args)?;
    let outlives = medium.bdf().is_some() || !medium.is_ephemeral();
    ensure!(
        args.kill.is_none() || outlives,
        "--kill needs data that outlives the process: use file= with size= for the embedded controller"
    );
    args.consent.check(&medium, args.namespace, "this overwrites")?;
    let mut server = match (&args.server, &medium.address) {
        // With the plan of --faults.
        (Some(_), Address::Emulated(options)) => {
            Some(Server::start(&options.to_string(), scratch.0.join("socket"))?)
        }
        _ => None,
    };
    let target = match &server {
        Some(server) => Target { address: server.address()? },
        None => medium,
    };
    let (range, load) = fit(args, &target)?;
    let path = scratch.0.join("record");
    let record = Record::create(&path, range)?;
    let mut sum = Sum::default();
    let started = Instant::now();
    let until = started + args.time;
    let outcome = match args.kill {
        None => work(args, &target, &record, Job { load, life: 0, until: Some(until), only_verify: false })?,
        Some(pause) => lives(args, load, &target, &record, &path, until, pause, &mut server, &mut sum)?,
    };
    let outcome = match outcome {
        Outcome::Done if outlives || server.is_some() => {
            work(args, &target, &record, Job { load, life: u64::MAX, until: None, only_verify: true })?
        }
        other => other,
    };
    sum.time = started.elapsed();
    sum.counts = record.total()?;
    if outcome == Outcome::Faults {
        let kept = env::temp_dir().join(format!("upcie-soak-{}.record", std::process::id()));
        fs::copy(&path, &kept).with_context(|| format!("keeping the record in {}", kept.display()))?;
        cli::message(&format!("upcie: the record of the blocks is in {}", kept.display()));
    }
    Ok((sum, outcome))
}

/// Returns the target whose data is overwritten, with the plan of `--faults`.
fn medium(args: &SoakArgs) -> anyhow::Result<Target> {
    let mut address = match (&args.server, &args.address) {
        (Some(options), _) => {
            let text = format!("emu:{options}");
            target::parse_address(&text).map_err(|error| anyhow::anyhow!("--server {options}: {error}"))?
        }
        (None, Some(address)) => address.clone(),
        (None, None) => bail!("an address is missing"),
    };
    if let Some(plan) = &args.faults {
        let shown = plan.display();
        let Address::Emulated(options) = &mut address else {
            bail!("--faults {shown}: {address} takes no plan: use emu, or --server");
        };
        ensure!(options.faults.is_none(), "--faults {shown}: the options have a plan already (faults=)");
        options.faults = Some(plan.clone());
    }
    Ok(Target { address })
}

/// Finds the tested range, and the load that the controller can have.
fn fit(args: &SoakArgs, target: &Target) -> anyhow::Result<(Range, Load)> {
    // Nobody tries this again.
    let controller = target.open(args.lists.builder().timeout(args.timeout.max(GRACE)))?;
    let namespace = target::data_namespace(&controller, args.namespace)?;
    check_unprotected(controller.name(), &namespace)?;
    check_any_order(controller.name(), &namespace, "soak")?;
    let load = Load::fit(args, &controller)?;
    let block = namespace.block_size() as u64;
    let total = namespace.blocks().saturating_mul(block);
    let offset = args.offset.bytes;
    ensure!(
        offset.is_multiple_of(block) && offset < total,
        "--offset {}: use a multiple of the block size, {block} bytes, below the {} of namespace {}",
        args.offset,
        units::bytes(total),
        namespace.nsid()
    );
    let left = total - offset;
    let length = args.length.as_ref().map_or(LENGTH.min(left), |length| length.bytes);
    ensure!(
        length.is_multiple_of(block) && length <= left && length / block >= 64 * load.threads as u64,
        "--length: use a multiple of the block size, {block} bytes, of at least 64 blocks per thread and at most {left} bytes"
    );
    // Data of an earlier run, with the same --seed, must not pass for this run's.
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let seed = mix(args.seed ^ mix(now.as_nanos() as u64) ^ u64::from(std::process::id()));
    Ok((Range { seed, slba: offset / block, blocks: length / block, block_size: block }, load))
}

/// Starts one worker after the other, and kills it or the server after a random time.
#[expect(clippy::too_many_arguments, reason = "each is another part of the run")]
fn lives(
    args: &SoakArgs,
    load: Load,
    target: &Target,
    record: &Record,
    path: &Path,
    until: Instant,
    pause: Duration,
    server: &mut Option<Server>,
    sum: &mut Sum,
) -> anyhow::Result<Outcome> {
    let mut rng = Rng::new(args.seed);
    for life in 0.. {
        let mut worker = worker(args, load, &target.address, path, life)?;
        loop {
            let nanos = u64::try_from(pause.as_nanos()).unwrap_or(u64::MAX / 2);
            let moment = Instant::now() + Duration::from_nanos(scale(rng.draw(), nanos.saturating_mul(2)));
            if let Some(status) = watch(&mut worker, moment.min(until))? {
                return ended(status);
            }
            if signal::interrupted() || Instant::now() >= until {
                kill(Pid::from_raw(worker.0.id().try_into()?), Signal::SIGTERM)?;
                let patience = Instant::now() + args.timeout + GRACE;
                let Some(status) = watch(&mut worker, patience)? else {
                    bail!("the worker did not end within {:?} of SIGTERM", args.timeout + GRACE);
                };
                let outcome = match status.signal() {
                    // It had just been started, and has no handler yet.
                    Some(signal) if signal == Signal::SIGTERM as i32 => Outcome::Interrupted,
                    _ => ended(status)?,
                };
                let done = outcome == Outcome::Interrupted && !signal::interrupted();
                return Ok(if done { Outcome::Done } else { outcome });
            }
            match server {
                Some(server) if rng.draw().is_multiple_of(2) => {
                    record.count_loss()?;
                    server.kill();
                    record.count_loss()?;
                    server.start_again()?;
                    sum.servers_killed += 1;
                }
                _ => {
                    drop(worker);
                    sum.workers_killed += 1;
                    break;
                }
            }
        }
    }
    unreachable!("the loop has no end of its own")
}

/// Returns this program's `--log` for its children.
fn log_option() -> Option<String> {
    log::requested().map(|filter| format!("--log={filter}"))
}

/// Starts a worker process.
fn worker(
    args: &SoakArgs,
    load: Load,
    address: &Address,
    record: &Path,
    life: u64,
) -> anyhow::Result<Process> {
    let mut command = Command::new(env::current_exe().context("finding this program")?);
    command.arg("soak").arg(address.to_string()).arg("--worker").arg(record);
    command.args(["--life", &life.to_string(), "--seed", &args.seed.to_string()]);
    command.args(["--threads", &load.threads.to_string(), "--depth", &load.depth.to_string()]);
    command.args(["--timeout", &format!("{}ms", args.timeout.as_millis().max(1))]);
    if let Some(nsid) = args.namespace {
        command.args(["--namespace", &nsid.to_string()]);
    }
    if args.lists.sgl {
        command.arg("--sgl");
    }
    if args.verify {
        command.arg("--verify");
    }
    command.args(log_option());
    Ok(Process(command.stdin(Stdio::null()).spawn().context("starting a worker")?))
}

/// Waits for the end of a worker until a moment or a signal; `None` if it goes on.
fn watch(worker: &mut Process, until: Instant) -> anyhow::Result<Option<ExitStatus>> {
    let asked = signal::interrupted();
    loop {
        if let Some(status) = worker.0.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() >= until || signal::interrupted() != asked {
            return Ok(None);
        }
        thread::sleep(LOOK);
    }
}

/// Judges the end of a worker by its exit code; the worker has printed its message.
fn ended(status: ExitStatus) -> anyhow::Result<Outcome> {
    match status.code().and_then(|code| u8::try_from(code).ok()) {
        Some(outcome::FAULTS) => Ok(Outcome::Faults),
        Some(outcome::INTERRUPTED) => Ok(Outcome::Interrupted),
        _ => bail!("a worker ended: {status}"),
    }
}

/// An `nvme-emu` of this run.
struct Server {
    options: String,
    socket: PathBuf,
    process: Option<Process>,
}

impl Server {
    fn start(options: &str, socket: PathBuf) -> anyhow::Result<Self> {
        let mut server = Self { options: options.to_owned(), socket, process: None };
        server.start_again()?;
        Ok(server)
    }

    fn address(&self) -> anyhow::Result<Address> {
        let text = format!("vfio-user:{}", self.socket.display());
        target::parse_address(&text).map_err(|error| anyhow::anyhow!(error))
    }

    fn kill(&mut self) {
        self.process = None;
    }

    /// Starts the server, and waits until it listens.
    fn start_again(&mut self) -> anyhow::Result<()> {
        let _ = fs::remove_file(&self.socket);
        let program = env::current_exe().context("finding this program")?.with_file_name("nvme-emu");
        // The server ends with this process, however that ends.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]).arg(&program).arg("--socket").arg(&self.socket);
        command
            .args(["--options", &self.options])
            .args(log_option())
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        let child = command.spawn().with_context(|| format!("starting {}", program.display()))?;
        let process = self.process.insert(Process(child));
        let started = Instant::now();
        while !self.socket.exists() {
            if let Some(status) = process.0.try_wait()? {
                bail!("nvme-emu --options {} ended: {status}", self.options);
            }
            if started.elapsed() > GRACE || signal::interrupted() {
                bail!("nvme-emu did not listen within {} s", GRACE.as_secs());
            }
            thread::sleep(LOOK);
        }
        Ok(())
    }
}

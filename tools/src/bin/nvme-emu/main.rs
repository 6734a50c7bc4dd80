//! `nvme-emu`: serves the embedded NVMe controller to vfio-user clients on a Unix socket.

mod threads;

use anyhow::Context;
use clap::{CommandFactory, Parser};
use clap_complete::Shell;
use nix::sys::signal::{SigSet, Signal};
use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, Ordering},
    },
    thread,
    time::{Duration, Instant},
};
use upcie_core::vfio_user::server::{Access, Listener, Server};
use upcie_nvme::emu::{Emulator, Error, Options};
use upcie_tools::{
    cli,
    log::{self, LogArgs},
    stdio, units, user,
};

/// Emulates an NVMe controller behind a vfio-user socket.
///
/// Serves one client at a time until SIGINT or SIGTERM; a second client gets the error "busy". Each further
/// --socket is another controller of the same NVM subsystem, with the same namespaces; with --vfs these are
/// the secondary controllers of the first one. The data is lost at the end of the program unless --file
/// keeps it.
#[derive(Debug, Parser)]
#[command(
    name = "nvme-emu",
    version,
    after_help = "Examples:\n  \
        nvme-emu --socket /tmp/nvme.sock &\n  \
        upcie info vfio-user:/tmp/nvme.sock\n\n  \
        nvme-emu --socket /tmp/nvme.sock --file disk.img --size 4G --lba 4096\n  \
        nvme-emu --socket /run/nvme.sock --mode 660 --owner root:kvm\n  \
        nvme-emu --socket /tmp/a.sock --socket /tmp/b.sock\n  \
        nvme-emu --socket /tmp/pf.sock --socket /tmp/vf1.sock --socket /tmp/vf2.sock --vfs 2\n  \
        nvme-emu --socket /tmp/nvme.sock --options size=64M,namespaces=2,latency=50us\n\n\
        It allocates the memory for the data first, then listens. When it is ready it prints one line on\n\
        stdout, `listening on vfio-user:PATH …`, with the size of that memory. Messages go to stderr;\n\
        --log prints more. A signal ends it within two seconds: it asks the client to disconnect, and\n\
        then writes the cached data of --file to the disk.\n\n\
        Sizes in bytes: K, M, G and T are powers of 1024, as in fio (4K = 4KB = 4KiB).\n\n\
        Exit codes:\n  \
        0  ended by a signal or --once\n  \
        1  an error while running, or data that may not be on the disk\n  \
        2  wrong usage"
)]
struct Args {
    /// Socket to listen on, once for each controller; a socket without a server is replaced
    #[arg(long, short_alias = 's', value_name = "PATH", required_unless_present = "completions")]
    socket: Vec<PathBuf>,
    /// Permission bits of the socket, in octal: they decide which users may connect
    #[arg(long, value_name = "MODE", default_value = "0600", value_parser = parse_mode)]
    mode: u32,
    /// Owner of the socket: USER or USER:GROUP [default group: the user's own]
    #[arg(long, value_name = "OWNER")]
    owner: Option<String>,
    /// Print the completion script of a shell: bash, zsh, fish, elvish or powershell
    #[arg(long, value_name = "SHELL")]
    completions: Option<Shell>,
    /// Options as in an `emu:` address, key=value,…; the flags below override them
    #[arg(long, short_alias = 'o', value_name = "OPTIONS", default_value = "")]
    options: String,
    /// Exit after the first client, of each controller
    #[arg(long)]
    once: bool,
    /// Size of each namespace in bytes (K, M, G, T) [default: 1G, or the size of the file]
    #[arg(long, value_name = "BYTES")]
    size: Option<String>,
    /// Block size, 512 or 4096, or one per namespace (512+4096) [default: 512]
    #[arg(long, value_name = "BYTES")]
    lba: Option<String>,
    /// Number of namespaces [default: 1]
    #[arg(long, value_name = "N")]
    namespaces: Option<String>,
    /// The most namespaces that hosts can create [default: as many as there are at the start]
    #[arg(long, value_name = "N")]
    nn: Option<String>,
    /// Keep the data in this file; with --size it is created if it does not exist
    #[arg(long, value_name = "PATH")]
    file: Option<String>,
    /// Write protect the namespaces, and open the file for reading only
    #[arg(long)]
    ro: bool,
    /// Transfer no data, for measurements
    #[arg(long)]
    null: bool,
    /// Allocate memory on first write instead of at the start; allows sizes beyond the machine's memory, but
    /// slows down first writes
    #[arg(long)]
    no_populate: bool,
    /// Complete no I/O command sooner than this (50us, 1ms)
    #[arg(long, value_name = "TIME")]
    latency: Option<String>,
    /// Largest transfer of a command in bytes, a power of two [default: 1M]
    #[arg(long, value_name = "BYTES")]
    mdts: Option<String>,
    /// Number of I/O submission queues, and of completion queues [default: 64]
    #[arg(long, value_name = "N")]
    queues: Option<String>,
    /// Largest number of entries in an I/O queue [default: 4096]
    #[arg(long, value_name = "N")]
    depth: Option<String>,
    /// Number of MSI-X vectors; 0 for none [default: 65]
    #[arg(long, value_name = "N")]
    vectors: Option<String>,
    /// Number of MSI messages, a power of two up to 32 [default: 0]
    #[arg(long, value_name = "N")]
    msi: Option<String>,
    /// Have an interrupt pin (INTx)
    #[arg(long)]
    intx: bool,
    /// Make the first socket's controller a primary one with so many secondary ones, up to 8, on the further
    /// sockets: those of SR-IOV's virtual functions, offline until it turns them on
    #[arg(long, value_name = "N")]
    vfs: Option<String>,
    /// Fail as the plan in this file (TOML) says, to test how an initiator copes; docs/faults.md has its format
    #[arg(long, value_name = "FILE")]
    faults: Option<String>,
    /// Serial number [default: EMU0]
    #[arg(long, value_name = "TEXT")]
    serial: Option<String>,
    #[command(flatten)]
    log: LogArgs,
}

impl Args {
    fn options(&self) -> Result<Options, Error> {
        let mut options: Options = self.options.parse()?;
        let on = |flag: bool| flag.then(|| "true".to_owned());
        let (ro, null, intx) = (on(self.ro), on(self.null), on(self.intx));
        let populate = self.no_populate.then(|| "false".to_owned());
        let flags = [
            ("size", &self.size),
            ("lba", &self.lba),
            ("namespaces", &self.namespaces),
            ("nn", &self.nn),
            ("file", &self.file),
            ("ro", &ro),
            ("null", &null),
            ("populate", &populate),
            ("latency", &self.latency),
            ("mdts", &self.mdts),
            ("queues", &self.queues),
            ("depth", &self.depth),
            ("vectors", &self.vectors),
            ("msi", &self.msi),
            ("intx", &intx),
            ("vfs", &self.vfs),
            ("faults", &self.faults),
            ("serial", &self.serial),
        ];
        for (key, value) in flags {
            if let Some(value) = value {
                options.set(key, value)?;
            }
        }
        options.check()?;
        let (vfs, sockets) = (usize::from(options.functions.count), self.socket.len());
        if vfs > 0 && sockets != vfs + 1 {
            let reason = format!(
                "the primary controller and each of its secondary ones need a --socket, {} in all, and there are {sockets}",
                vfs + 1
            );
            return Err(Error::option(format!("vfs={vfs}"), reason));
        }
        Ok(options)
    }
}

/// Deadline of the end after a signal: a client or a disk may hang.
const END_DEADLINE: Duration = Duration::from_millis(1800);
/// Deadline of the last flush if no signal asked for the end.
const FLUSH_DEADLINE: Duration = Duration::from_secs(30);
/// Time between progress messages while memory is allocated.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(2);

/// Current activity, for the message of an end that misses its deadline.
#[derive(Debug, Clone, Default)]
struct Phase(Arc<AtomicU8>);

impl Phase {
    const FLUSHING: u8 = 1;
    const ENDED: u8 = 2;

    fn enter(&self, phase: u8) {
        self.0.store(phase, Ordering::Relaxed);
    }

    /// Exits with an error after the time, unless the program has finished.
    fn end_after(&self, after: Duration, file: Option<&Path>) {
        thread::sleep(after);
        let doing = match self.0.load(Ordering::Relaxed) {
            Self::ENDED => return,
            Self::FLUSHING => "the last flush",
            _ => "the current command",
        };
        let mut text = format!("nvme-emu: {doing} did not end within {after:?}: exiting anyway");
        if let Some(file) = file {
            text +=
                &format!("; data written to {} since the last flush may not be on its disk", file.display());
        }
        cli::message(&text);
        std::process::exit(1);
    }
}

fn parse_mode(text: &str) -> Result<u32, String> {
    let mode = u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o777);
    mode.ok_or_else(|| {
        "permission bits are octal, from 0 to 777: 600 for the owner only, 660 for the group as well".into()
    })
}

fn main() -> ExitCode {
    let args: Args = cli::parse(std::env::args_os());
    if let Err(error) = log::start(&args.log) {
        cli::message(&format!("nvme-emu: {error:#}"));
        return ExitCode::from(2);
    }
    let options = match args.options() {
        Ok(options) => options,
        Err(error) => {
            cli::message(&format!("nvme-emu: {error}"));
            return ExitCode::from(2);
        }
    };
    let done = match args.completions {
        None => run(&args, &options),
        Some(shell) => cli::print_completions(Args::command(), shell),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            cli::message(&format!("nvme-emu: {error:#}"));
            ExitCode::from(1)
        }
    }
}

fn run(args: &Args, options: &Options) -> anyhow::Result<()> {
    let mut access = Access { mode: args.mode, ..Access::default() };
    if let Some(owner) = &args.owner {
        let (_, uid, gid) = user::parse(owner)?;
        (access.uid, access.gid) = (Some(uid), gid);
    }
    let (stop, phase) = (Arc::new(AtomicBool::new(false)), Phase::default());
    let file = options.file.clone().filter(|_| !options.ro);
    let handler = (stop.clone(), phase.clone(), file.clone());
    ctrlc::set_handler(move || {
        let (stop, phase, file) = &handler;
        stop.store(true, Ordering::Relaxed);
        phase.end_after(END_DEADLINE, file.as_deref());
    })
    .context("handling SIGINT and SIGTERM")?;
    // Only the handler's thread receives signals: this thread may block in the kernel on a disk, and a signal
    // sent to it would wait.
    let signals = SigSet::from_iter([Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP]);
    signals.thread_block().context("leaving signals to their handler")?;
    upcie_core::memory::survive_shrinking()?;
    let count = u16::try_from(args.socket.len()).context("too many sockets")?;
    let mut controllers = Emulator::subsystem(options, count)?;
    let emulator = controllers.first_mut().context("--socket is missing")?;
    let size = units::bytes(emulator.namespace_size());
    let addresses: Vec<_> = args.socket.iter().map(|path| format!("vfio-user:{}", path.display())).collect();
    let mut line = format!("listening on {} ({} × {size}", addresses.join(" and "), options.namespaces);
    if options.file.is_none() && !options.null {
        if options.populate.unwrap_or(!options.keys.any()) {
            let taken = fill_memory(emulator, options, &stop)?;
            line += &format!(", uses {} of memory", units::bytes(taken));
        } else {
            line += ", allocates memory on first write";
        }
    }
    if stop.load(Ordering::Relaxed) {
        phase.enter(Phase::ENDED);
        return Ok(());
    }
    let listeners = args.socket.iter().map(|socket| Listener::bind_for(socket, access));
    let listeners = listeners.collect::<Result<Vec<_>, _>>()?;
    // A service may be started without stdout, and then nobody waits for this line.
    if stdio::has_stdout() {
        cli::print(format!("{line})\n").as_bytes())?;
    }
    let served = serve(&mut controllers, &listeners, &stop, args.once);
    // Nobody is left to wait for an answer during the flush.
    drop(listeners);
    phase.enter(Phase::FLUSHING);
    if !stop.load(Ordering::Relaxed) {
        let phase = phase.clone();
        let watch = thread::Builder::new().spawn(move || phase.end_after(FLUSH_DEADLINE, file.as_deref()));
        if let Err(error) = watch {
            cli::message(&format!("nvme-emu: the last flush has no deadline: {error}"));
        }
    }
    let flushed = controllers.first_mut().map_or(Ok(()), Emulator::flush);
    let flushed = flushed.map_err(|status| anyhow::anyhow!("flushing the data: {status}"));
    // Closing a file may take as long as a flush.
    drop(controllers);
    phase.enter(Phase::ENDED);
    served?;
    flushed
}

/// Serves the controllers, each on its socket, until `stop` is true, or each has had `once` a client. The first error ends all,
/// and so does a panic.
fn serve(
    controllers: &mut [Emulator],
    listeners: &[Listener],
    stop: &AtomicBool,
    once: bool,
) -> upcie_core::Result<()> {
    threads::together(listeners.iter().zip(controllers).collect(), stop, |(listener, controller)| {
        let server = Server::new();
        match once {
            true => server.serve_one(listener, controller, stop),
            false => server.serve(listener, controller, stop),
        }
    })
}

/// Allocates the memory for the data, and reports progress if that takes long.
fn fill_memory(emulator: &mut Emulator, options: &Options, stop: &AtomicBool) -> anyhow::Result<u64> {
    let wanted = emulator.namespace_size().saturating_mul(options.namespaces.into());
    let mut reported = Instant::now();
    let mut report = |done: u64| {
        if reported.elapsed() >= PROGRESS_INTERVAL {
            reported = Instant::now();
            let (done, wanted) = (units::bytes(done), units::bytes(wanted));
            cli::message(&format!("nvme-emu: allocating memory for the data: {done} of {wanted}"));
        }
    };
    Ok(emulator.fill_memory(stop, &mut report)?)
}

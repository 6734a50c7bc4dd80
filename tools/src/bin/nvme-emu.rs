//! `nvme-emu`: the embedded NVMe controller, served on a Unix socket to any vfio-user client.

use anyhow::Context;
use clap::Parser;
use std::{
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};
use upcie_core::vfio_user::server::{Listener, Server};
use upcie_nvme::emu::{Emulator, Options};
use upcie_tools::{
    cli,
    log::{self, LogArgs},
};

/// An NVMe controller in software, behind a vfio-user socket.
///
/// Serves one client after another until SIGINT or SIGTERM; a second client at the same time is told that the device is
/// busy. The data lasts as long as the program, or as the file of --file.
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = "Examples:\n  \
        nvme-emu --socket /tmp/nvme.sock &\n  \
        upcie info vfio-user:/tmp/nvme.sock\n\n  \
        nvme-emu --socket /tmp/nvme.sock --file disk.img --size 4G --lba 4096\n  \
        nvme-emu --socket /tmp/nvme.sock --options size=64M,namespaces=2,latency=50us\n\n\
        When it is ready it prints one line, `listening on vfio-user:PATH …`, to stdout. Messages go to stderr; --log\n\
        gives more of them.\n\n\
        Exit codes: 0 ended by a signal or --once, 1 an error while running, 2 wrong usage."
)]
struct Args {
    /// Where to listen; a socket that nobody serves any more is replaced.
    #[arg(long, short, value_name = "PATH")]
    socket: PathBuf,
    /// Options as in an `emu:` address, key=value,…; the flags below go over them.
    #[arg(long, short, value_name = "OPTIONS", default_value = "")]
    options: String,
    /// End after the first client.
    #[arg(long)]
    once: bool,
    /// Bytes of each namespace (K, M, G, T) [default: 1G, or what the file has]
    #[arg(long, value_name = "BYTES")]
    size: Option<String>,
    /// Block size, 512 or 4096, or one by namespace (512+4096) [default: 512]
    #[arg(long, value_name = "BYTES")]
    lba: Option<String>,
    /// Number of namespaces [default: 1]
    #[arg(long, value_name = "N")]
    namespaces: Option<String>,
    /// Keep the data in this file; with --size it is made if there is none
    #[arg(long, value_name = "PATH")]
    file: Option<String>,
    /// Write nothing: the namespaces are write protected, and the file is opened for reading
    #[arg(long)]
    ro: bool,
    /// Move no data: for measuring
    #[arg(long)]
    null: bool,
    /// Complete each I/O command no sooner than this (50us, 1ms)
    #[arg(long, value_name = "TIME")]
    latency: Option<String>,
    /// The most bytes of a command, a power of two [default: 1M]
    #[arg(long, value_name = "BYTES")]
    mdts: Option<String>,
    /// I/O queues of each kind [default: 64]
    #[arg(long, value_name = "N")]
    queues: Option<String>,
    /// The most entries of an I/O queue [default: 4096]
    #[arg(long, value_name = "N")]
    depth: Option<String>,
    /// MSI-X vectors; 0 for none [default: 65]
    #[arg(long, value_name = "N")]
    vectors: Option<String>,
    /// MSI messages, a power of two up to 32 [default: 0]
    #[arg(long, value_name = "N")]
    msi: Option<String>,
    /// Have an interrupt pin (INTx)
    #[arg(long)]
    intx: bool,
    /// Serial number [default: EMU0]
    #[arg(long, value_name = "TEXT")]
    serial: Option<String>,
    #[command(flatten)]
    log: LogArgs,
}

impl Args {
    fn options(&self) -> Result<Options, upcie_nvme::emu::Error> {
        let mut options: Options = self.options.parse()?;
        let on = |flag: bool| flag.then(|| "true".to_owned());
        let (ro, null, intx) = (on(self.ro), on(self.null), on(self.intx));
        let flags = [
            ("size", &self.size),
            ("lba", &self.lba),
            ("namespaces", &self.namespaces),
            ("file", &self.file),
            ("ro", &ro),
            ("null", &null),
            ("latency", &self.latency),
            ("mdts", &self.mdts),
            ("queues", &self.queues),
            ("depth", &self.depth),
            ("vectors", &self.vectors),
            ("msi", &self.msi),
            ("intx", &intx),
            ("serial", &self.serial),
        ];
        for (key, value) in flags {
            if let Some(value) = value {
                options.set(key, value)?;
            }
        }
        options.check()?;
        Ok(options)
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    if let Err(error) = log::start(&args.log) {
        cli::say(&format!("nvme-emu: {error:#}"));
        return ExitCode::from(2);
    }
    let options = match args.options() {
        Ok(options) => options,
        Err(error) => {
            cli::say(&format!("nvme-emu: {error}"));
            return ExitCode::from(2);
        }
    };
    match run(&args, &options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            cli::say(&format!("nvme-emu: {error:#}"));
            ExitCode::from(1)
        }
    }
}

fn run(args: &Args, options: &Options) -> anyhow::Result<()> {
    let stop = Arc::new(AtomicBool::new(false));
    let flag = stop.clone();
    ctrlc::set_handler(move || flag.store(true, Ordering::Relaxed)).context("handling SIGINT and SIGTERM")?;
    let mut emulator = Emulator::new(options)?;
    let listener = Listener::bind(&args.socket)?;
    let mut stdout = io::stdout().lock();
    writeln!(
        stdout,
        "listening on vfio-user:{} ({} × {} bytes)",
        args.socket.display(),
        options.namespaces,
        emulator.namespace_size()
    )?;
    stdout.flush()?;
    drop(stdout);
    let server = Server::new();
    let served = if args.once {
        server.serve_one(&listener, &mut emulator, &stop)
    } else {
        server.serve(&listener, &mut emulator, &stop)
    };
    let flushed = emulator.flush().map_err(|status| anyhow::anyhow!("flushing the data: {status}"));
    served?;
    flushed
}

//! The guest as a machine: its options, QEMU's command line, the console.

use std::ffi::OsString;
use std::fs::File;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use anyhow::{Context, Result};

use crate::lab::devices::{
    DEVICES, DISKS, FAILING, HOT, MEDIA_ERRORS, PLACED, PLACED_DISK, VIRTUAL, VIRTUAL_DISKS, ZONED,
    ZONED_DISKS,
};
use crate::lab::kernel::{Accelerator, Lab};
use crate::lab::run_directory::RunDirectory;
use crate::process::Guard;

/// Options of the machine.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Memory of the guest in MiB
    #[arg(long, default_value_t = 2048, value_name = "MIB")]
    pub memory: u32,
    /// Number of processors of the guest
    #[arg(long, default_value_t = 2)]
    pub cpus: u32,
    /// Additional QEMU device, as for QEMU's -device (repeatable)
    #[arg(long = "device", value_name = "SPEC")]
    pub devices: Vec<String>,
    /// IOMMU mode: translate addresses, off, or pass addresses through (identity domains)
    #[arg(long, value_enum, default_value_t = Iommu::On)]
    pub iommu: Iommu,
    /// Load Debian's unchanged VFIO modules, without iommufd and noiommu
    #[arg(long)]
    pub stock: bool,
    /// Number of NUMA nodes to split memory and processors over
    #[arg(long, default_value_t = 1, value_name = "NODES", value_parser = clap::value_parser!(u32).range(1..=8))]
    pub numa: u32,
    /// Add controller C, at 0000:03:00.0: reads of its block 1000 and writes of its block 2000 fail
    #[arg(long)]
    pub failing_media: bool,
    /// Add controller D, behind C at 0000:04:00.0: its namespace 2 is zoned
    #[arg(long)]
    pub zoned: bool,
    /// Add controller E, behind D at 0000:05:00.0: its namespace has flexible data placement
    #[arg(long)]
    pub placed: bool,
    /// Add controller F, behind E at 0000:06:00.0: it can have two virtual functions
    #[arg(long)]
    pub virtual_functions: bool,
    /// Additional words for the kernel's command line
    #[arg(long, value_name = "WORDS", default_value = "", hide_default_value = true)]
    pub append: String,
    /// Show the guest's console on stderr
    #[arg(long)]
    pub console: bool,
    /// Print the QEMU command
    #[arg(long, short)]
    pub verbose: bool,
    /// Replacement of the lab's controllers
    #[arg(skip)]
    pub vfio_user: Option<VfioUser>,
}

/// Controllers in other processes, and a QEMU with a vfio-user client.
#[derive(Debug, Clone)]
pub struct VfioUser {
    /// Words of the command that starts QEMU.
    pub qemu: Vec<OsString>,
    /// Sockets of the controllers; each gets a function behind its own root port.
    pub sockets: Vec<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            memory: 2048,
            cpus: 2,
            devices: Vec::new(),
            iommu: Iommu::On,
            stock: false,
            numa: 1,
            failing_media: false,
            zoned: false,
            placed: false,
            virtual_functions: false,
            append: String::new(),
            console: false,
            verbose: false,
            vfio_user: None,
        }
    }
}

/// Mode of the guest's emulated IOMMU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Iommu {
    On,
    Off,
    Pt,
}

impl Iommu {
    /// Returns the mode's words for the kernel.
    pub fn words(self) -> &'static str {
        match self {
            Self::On => "intel_iommu=on",
            Self::Off => "intel_iommu=off",
            Self::Pt => "intel_iommu=on iommu=pt",
        }
    }
}

/// Output of the guest's serial port so far.
#[derive(Debug, Default)]
pub struct Console {
    pub text: Vec<u8>,
    /// True to copy further bytes to stdout, for an interactive prompt.
    pub forward: bool,
}

impl Console {
    /// Returns the position of the first occurrence of a word.
    pub fn find(&self, word: &str) -> Option<usize> {
        self.text.windows(word.len()).position(|window| window == word.as_bytes())
    }

    /// Returns the last lines, for an error.
    pub fn tail(&self, count: usize) -> String {
        crate::process::last_lines(&String::from_utf8_lossy(&self.text), count)
    }
}

/// A running guest; dropping it kills QEMU.
#[derive(Debug)]
pub struct Machine {
    pub process: Guard,
    console: Arc<Mutex<Console>>,
    /// Input of the serial port, if the machine is interactive.
    pub input: Option<ChildStdin>,
}

impl Machine {
    pub fn start(lab: &Lab, run: &RunDirectory, options: &Options, interactive: bool) -> Result<Self> {
        let mut command = command(lab, run, options);
        if options.verbose {
            crate::process::log!("{}", crate::process::describe(&command));
        }
        let mut child = command
            .stdin(if interactive { Stdio::piped() } else { Stdio::null() })
            .stdout(Stdio::piped())
            .stderr(File::create(run.path("qemu.stderr"))?)
            .spawn()
            .context("cannot start QEMU")?;
        let console = Arc::new(Mutex::new(Console::default()));
        let (input, output) = (child.stdin.take(), child.stdout.take());
        let process = Guard(child);
        let (shared, show) = (Arc::clone(&console), options.console);
        let mut output = output.context("QEMU without stdout")?;
        thread::spawn(move || {
            let mut chunk = [0; 4096];
            while let Ok(length @ 1..) = output.read(&mut chunk) {
                let chunk = &chunk[..length];
                let mut console = shared.lock().unwrap_or_else(PoisonError::into_inner);
                console.text.extend_from_slice(chunk);
                // Errors are ignored: our own output may be closed.
                if console.forward {
                    let _ = std::io::stdout().write_all(chunk).and_then(|()| std::io::stdout().flush());
                } else if show {
                    let _ = std::io::stderr().write_all(chunk);
                }
            }
        });
        Ok(Self { process, console, input })
    }

    pub fn console(&self) -> MutexGuard<'_, Console> {
        self.console.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn has_ended(&mut self) -> Result<bool> {
        Ok(self.process.0.try_wait()?.is_some())
    }

    /// Returns how QEMU ended, which tells a kill or a crash of QEMU from a guest that powered off.
    pub fn ending(&mut self) -> String {
        match self.process.0.try_wait() {
            Ok(Some(status)) => format!("QEMU ended by itself ({status})"),
            Ok(None) => "QEMU runs".to_owned(),
            Err(error) => format!("QEMU's end is unknown: {error}"),
        }
    }
}

fn command(lab: &Lab, run: &RunDirectory, options: &Options) -> Command {
    // setpriv kills the guest when this program ends in any way.
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL"]);
    match &options.vfio_user {
        Some(foreign) => command.args(&foreign.qemu),
        None => command.arg("qemu-system-x86_64"),
    };
    command.args(["-nodefaults", "-no-user-config", "-no-reboot"]);
    command.args(["-display", "none", "-monitor", "none", "-serial", "stdio"]);
    match lab.accelerator {
        Accelerator::Kvm => command.args(["-accel", "kvm", "-cpu", "host"]),
        Accelerator::Tcg => command.args(["-accel", "tcg,thread=multi,tb-size=512", "-cpu", "max"]),
    };
    // The memory is the sum of the nodes' equal parts.
    let memory = options.memory / options.numa * options.numa;
    command.args(["-m", &memory.to_string(), "-smp", &options.cpus.to_string()]);
    if options.numa > 1 {
        nodes(&mut command, options);
    }
    let machine = "q35,kernel-irqchip=split,hpet=off,sata=off,smbus=off,usb=off,vmport=off";
    match &options.vfio_user {
        Some(foreign) => others(&mut command, machine, memory, foreign),
        None => {
            lab_devices(&mut command, machine, run);
            monitor(&mut command, run);
        }
    }
    if options.failing_media {
        failing(&mut command, run);
    }
    if options.zoned {
        disks(&mut command, run, ZONED_DISKS);
        for device in ZONED {
            command.args(["-device", device]);
        }
    }
    if options.placed {
        disks(&mut command, run, &[PLACED_DISK]);
        for device in PLACED {
            command.args(["-device", device]);
        }
    }
    if options.virtual_functions {
        disks(&mut command, run, VIRTUAL_DISKS);
        for device in VIRTUAL {
            command.args(["-device", device]);
        }
    }
    if options.vfio_user.is_none() {
        command.args(["-device", HOT]);
    }
    for device in &options.devices {
        command.args(["-device", device]);
    }
    command.arg("-virtfs");
    let share = run.path("share");
    command.arg(format!("local,path={},mount_tag=host,security_model=none,multidevs=remap", share.display()));
    command.arg("-kernel").arg(&lab.kernel).arg("-initrd").arg(run.path("initrd"));
    // nokaslr, mitigations and no_timer_check save seconds of emulated boot. The log is large enough for all
    // messages of a boot's suites.
    let words = "console=ttyS0 panic=-1 quiet nokaslr mitigations=off no_timer_check log_buf_len=4M";
    command.args(["-append", &format!("{words} {} {}", options.iommu.words(), options.append)]);
    command
}

/// Adds the lab's IOMMU and devices.
fn lab_devices(command: &mut Command, machine: &str, run: &RunDirectory) {
    command.args(["-M", machine, "-device", "intel-iommu,intremap=on,caching-mode=on,eim=on"]);
    disks(command, run, DISKS);
    command.args(["-object", "memory-backend-ram,id=pmr,size=16M,share=on"]);
    for device in DEVICES {
        command.args(["-device", device]);
    }
}

/// Connects the second serial port with QEMU's monitor, by a socket of which QEMU has both ends.
fn monitor(command: &mut Command, run: &RunDirectory) {
    let socket = run.path("monitor");
    command.arg("-chardev").arg(format!("socket,id=monitor,path={},server=on,wait=off", socket.display()));
    command.args(["-mon", "chardev=monitor,mode=readline"]);
    command.arg("-chardev").arg(format!("socket,id=port,path={}", socket.display()));
    command.args(["-serial", "chardev:port"]);
}

/// Adds the drives of disk images.
fn disks(command: &mut Command, run: &RunDirectory, disks: &[(&str, u64)]) {
    for (name, _) in disks {
        let file = run.path(&format!("{name}.raw"));
        command.arg("-drive");
        command.arg(format!("if=none,id={name},file={},format=raw,cache=unsafe", file.display()));
    }
}

/// Adds controller C over QEMU's `blkdebug`.
fn failing(command: &mut Command, run: &RunDirectory) {
    let errors = MEDIA_ERRORS.iter().enumerate().map(|(index, (kind, block))| {
        let rule = format!("inject-error.{index}");
        format!(",{rule}.event=none,{rule}.iotype={kind},{rule}.sector={block},{rule}.errno=5")
    });
    let file = run.path("c.raw");
    command.arg("-drive").arg(format!(
        "if=none,id=c,driver=blkdebug,image.driver=raw,image.file.driver=file,image.file.filename={}{}",
        file.display(),
        errors.collect::<String>()
    ));
    for device in FAILING {
        command.args(["-device", device]);
    }
}

/// Adds controllers of other processes, which map the guest's memory, and one of QEMU's own, which reads as zeroes.
fn others(command: &mut Command, machine: &str, memory: u32, foreign: &VfioUser) {
    command.args(["-object", &format!("memory-backend-memfd,id=mem,size={memory}M,share=on")]);
    command.args(["-M", &format!("{machine},memory-backend=mem")]);
    for (index, socket) in foreign.sockets.iter().enumerate() {
        let number = index + 1;
        command.args(["-device", &format!("pcie-root-port,id=rp{index},chassis={number},slot={number}")]);
        command.arg("-device").arg(format!(
            "{{\"driver\":\"vfio-user-pci\",\"bus\":\"rp{index}\",\"socket\":{{\"type\":\"unix\",\"path\":\"{}\"}}}}",
            socket.display()
        ));
    }
    let number = foreign.sockets.len() + 1;
    command.args(["-device", &format!("pcie-root-port,id=own,chassis={number},slot={number}")]);
    command.args(["-drive", "if=none,id=zeroes,driver=null-co,size=64M,read-zeroes=on"]);
    command.args(["-device", "nvme,bus=own,serial=QEMU,drive=zeroes"]);
}

/// Adds NUMA nodes with equal parts of the memory; processors are assigned in turn.
fn nodes(command: &mut Command, options: &Options) {
    for node in 0..options.numa {
        let memory = options.memory / options.numa;
        command.args(["-object", &format!("memory-backend-ram,id=node{node},size={memory}M")]);
        let processors = (node..options.cpus).step_by(options.numa as usize);
        let processors: String = processors.map(|processor| format!(",cpus={processor}")).collect();
        command.args(["-numa", &format!("node,nodeid={node},memdev=node{node}{processors}")]);
    }
}

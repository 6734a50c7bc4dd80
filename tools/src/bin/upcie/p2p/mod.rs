//! `upcie p2p`: copies blocks between two controllers through the memory buffer of one of them.

mod copy;
mod memory;
mod report;

use crate::{
    cli,
    guard::{self, Consent},
    outcome::Outcome,
    signal,
    target::{self, Lists, Target},
    units::{self, Bytes},
};
use anyhow::{Context, ensure};
use clap::Args;
use copy::{Copied, Job, Side};
use memory::{BufferOwner, controller, memory};
use report::Report;
use std::time::Duration;
use upcie_core::{device, pci::Function};
use upcie_nvme::{Address, Namespace};

/// Text below the options of `--help`.
pub const EXAMPLES: &str = "\
Examples:
  upcie p2p 0000:01:00.0 0000:02:00.0 --destructive --length 64M --verify
  upcie p2p 0000:01:00.0 0000:02:00.0 --destructive --buffer to --depth 8 --json
  upcie p2p uio:0000:01:00.0 uio:0000:02:00.0 --destructive

The data goes through the controller memory buffer (CMB) of one controller, which
the other accesses across the bus, and never through the host's memory. The same
copy through the host's memory is timed after it. Both controllers are opened in
one address space: a plain PCI address means vfio:, whose container maps the memory
of one device for the other, or uio: if the device is bound to uio_pci_generic.";

/// Commands in flight if the arguments name none, and the controllers take as many.
const DEPTH: u32 = 8;

/// Arguments of `upcie p2p`.
#[derive(Debug, Args)]
pub struct P2pArgs {
    /// Controller to copy from
    #[arg(value_name = "FROM", value_parser = target::parse_address)]
    from: Address,
    /// Controller to copy to
    #[arg(value_name = "TO", value_parser = target::parse_address)]
    to: Address,
    /// Namespace to copy from [default: the first]
    #[arg(long, short, alias = "from-nsid", value_name = "NSID")]
    namespace: Option<u32>,
    /// Namespace to copy to [default: the first]
    #[arg(long, alias = "to-nsid", value_name = "NSID")]
    to_namespace: Option<u32>,
    /// First byte to copy; a multiple of both block sizes
    #[arg(long, alias = "start", value_name = "BYTES", default_value = "0")]
    offset: Bytes,
    /// First byte of the copy; a multiple of both block sizes [default: the value of --offset]
    #[arg(long, alias = "to-start", value_name = "BYTES")]
    to_offset: Option<Bytes>,
    /// Bytes to copy; a multiple of both block sizes [default: to the end of the smaller namespace]
    #[arg(long, short, alias = "size", short_alias = 's', value_name = "BYTES")]
    length: Option<Bytes>,
    /// Bytes per command; reduced to the limit of either controller
    #[arg(long, short, value_name = "BYTES", default_value = "128K")]
    block_size: Bytes,
    /// Number of buffers, and so of commands in flight [default: 8, or as many as both controllers take]
    #[arg(long, short, value_parser = clap::value_parser!(u32).range(1..=1024))]
    depth: Option<u32>,
    /// Controller whose memory buffer is used [default: FROM, if it has one]
    #[arg(long)]
    buffer: Option<BufferOwner>,
    /// After the copy, read both ranges through the host's memory and compare them
    #[arg(long)]
    verify: bool,
    /// Skip the copy through the host's memory
    #[arg(long)]
    no_compare: bool,
    #[command(flatten)]
    lists: Lists,
    #[command(flatten)]
    consent: Consent,
    /// Give up if nothing completes for this long
    #[arg(long, value_name = "TIME", default_value = "30", value_parser = units::parse_time)]
    timeout: Duration,
    /// Print one JSON object on stdout
    #[arg(long)]
    json: bool,
}

/// Runs `upcie p2p`.
pub fn run(args: &P2pArgs) -> anyhow::Result<Outcome> {
    let (from, to) = (in_container(&args.from), in_container(&args.to));
    ensure!(from.bdf() != to.bdf() || from.bdf().is_none(), "{from} and {to} are the same device");
    args.consent.check(&Target { address: to.clone() }, args.to_namespace, "this overwrites")?;
    target::check_unused(&from)?;
    target::check_unused(&to)?;
    signal::install()?;
    let options = args.lists.builder().timeout(args.timeout);
    let from = options.clone().open(&from)?;
    let to = options.open_beside(&from, &to)?;
    signal::watch(&from)?;
    signal::watch(&to)?;
    target::warn_if_physical(&from, &format!("{}, {}", from.name(), to.name()));
    let (whose, memory) = memory(args.buffer, &from, &to)?;
    memory.check_peers()?;
    let namespaces =
        (target::data_namespace(&from, args.namespace)?, target::data_namespace(&to, args.to_namespace)?);
    guard::check_unprotected(to.name(), &namespaces.1)?;
    guard::check_any_order(to.name(), &namespaces.1, "p2p")?;
    let job = job(args, whose, &namespaces)?;
    let depth =
        depth(args.depth, [&from, &to].map(|controller| (controller.name(), controller.max_depth() - 1)))?;
    // Queue pairs exist for one copy only: a controller may have no second one for the next copy.
    let sides = || -> anyhow::Result<_> {
        let reader = Side::new(&from, &namespaces.0, depth, "reading")?;
        Ok((reader, Side::new(&to, &namespaces.1, depth, "writing")?))
    };
    let wanted = || {
        format!(
            "{depth} buffers of {} in the memory buffer of {} ({})",
            units::bytes(job.piece),
            controller(whose, &from, &to).name(),
            units::bytes(memory.size() as u64)
        )
    };
    // The reads fill the buffers, so nothing is zeroed across the bus first.
    let buffers =
        (0..depth).map(|_| memory.heap().alloc_unzeroed(job.piece as usize)).collect::<Result<Vec<_>, _>>();
    let buffers = buffers.with_context(|| format!("{}: use a smaller --depth or --block-size", wanted()))?;
    let mut report = Report {
        from: &from,
        to: &to,
        namespaces: &namespaces,
        job: &job,
        depth,
        whose,
        memory: &memory,
        direct: copy::run(sides()?, buffers, &job, "peer")?,
        host: None,
        difference: None,
    };
    namespaces.1.flush()?;
    let cut = |copied: &Copied| copied.bytes < job.size;
    let mut interrupted = cut(&report.direct);
    if args.verify && !interrupted {
        let (source, copy) = ((&from, &namespaces.0), (&to, &namespaces.1));
        report.difference = copy::verify(source, copy, &job, signal::interrupted)?;
        interrupted = report.difference.is_none();
    }
    if !args.no_compare && !interrupted {
        let buffers = (0..depth).map(|_| from.alloc(job.piece as usize)).collect::<Result<Vec<_>, _>>()?;
        let host = copy::run(sides()?, buffers, &Job { behind: false, ..job }, "host")?;
        namespaces.1.flush()?;
        interrupted = cut(&host);
        report.host = Some(host);
    }
    report.print(args.json)?;
    if let Some(Some(at)) = report.difference {
        cli::message(&format!("upcie: the copy differs from byte {at} on (of {} copied)", job.size));
        return Ok(Outcome::Faults);
    }
    if interrupted {
        let (copied, size) = (units::bytes(report.direct.bytes), units::bytes(job.size));
        match report.difference {
            None if args.verify => {
                cli::message(&format!("upcie: interrupted after {copied} of {size}, not verified"))
            }
            _ => cli::message(&format!("upcie: interrupted after {copied} of {size}")),
        }
        return Ok(Outcome::Interrupted);
    }
    Ok(Outcome::Done)
}

/// Selects a transport that can share device memory: the VFIO container for a plain address, or uio for a function that is
/// bound to `uio_pci_generic`.
fn in_container(address: &Address) -> Address {
    let has_uio = |function: Function| function.driver.as_deref() == Some("uio_pci_generic");
    match address {
        Address::Device(device::Address::Pci(bdf)) if Function::at(*bdf).is_ok_and(has_uio) => {
            device::Address::Uio(*bdf).into()
        }
        Address::Device(device::Address::Pci(bdf)) => device::Address::Vfio(*bdf).into(),
        other => other.clone(),
    }
}

/// Chooses the number of commands in flight, by the most that each controller takes in a queue.
fn depth(wanted: Option<u32>, most: [(&str, u32); 2]) -> anyhow::Result<u32> {
    let depth = wanted.unwrap_or_else(|| most.into_iter().fold(DEPTH, |depth, (_, most)| depth.min(most)));
    for (name, most) in most {
        ensure!(
            depth <= most,
            "{name}: --depth {depth}: the device takes at most {} in a queue",
            units::number(most.into(), "command")
        );
    }
    Ok(depth)
}

/// Returns the smallest number that both divide.
fn common_multiple(a: u64, b: u64) -> u64 {
    a / units::common_divisor(a, b).max(1) * b
}

/// Checks the ranges against both namespaces, and makes the job.
fn job(args: &P2pArgs, whose: BufferOwner, (from, to): &(Namespace, Namespace)) -> anyhow::Result<Job> {
    let unit = common_multiple(from.block_size() as u64, to.block_size() as u64);
    let (offset, to_offset) = (&args.offset, args.to_offset.as_ref().unwrap_or(&args.offset));
    let bytes = |namespace: &Namespace| namespace.blocks().saturating_mul(namespace.block_size() as u64);
    let left = |name: &str, namespace: &Namespace, start: &Bytes| {
        let all = bytes(namespace);
        all.checked_sub(start.bytes).filter(|&left| left > 0).with_context(|| {
            format!(
                "{name} {start}: namespace {} ends at byte {all} ({})",
                namespace.nsid(),
                units::bytes(all)
            )
        })
    };
    let most = left("--offset", from, offset)?.min(left("--to-offset", to, to_offset)?) / unit * unit;
    let given =
        [("--offset", Some(offset)), ("--to-offset", Some(to_offset)), ("--length", args.length.as_ref())];
    for (name, value) in given.into_iter().filter_map(|(name, value)| Some((name, value?))) {
        ensure!(
            value.bytes.is_multiple_of(unit),
            "{name} {value}: not a multiple of {unit} bytes, which are whole blocks on both sides"
        );
    }
    if let Some(length) = &args.length {
        ensure!(length.bytes > 0, "--length {length}: nothing to copy");
        ensure!(
            length.bytes <= most,
            "--length {length}: only {most} bytes ({}) can be copied from there",
            units::bytes(most)
        );
    }
    let size = args.length.as_ref().map_or(most, |length| length.bytes);
    ensure!(size > 0, "--offset {offset}: no whole block of {unit} bytes is left from there");
    let limit = from.max_transfer().min(to.max_transfer()) as u64;
    let piece = args.block_size.bytes.min(limit).min(size) / unit * unit;
    ensure!(piece > 0, "--block-size {}: less than a block of {unit} bytes", args.block_size);
    let (start, to_start) = (offset.bytes, to_offset.bytes);
    Ok(Job { start, to_start, size, piece, behind: whose == BufferOwner::To, timeout: args.timeout })
}

#[cfg(test)]
mod tests {
    use super::{common_multiple, depth};

    /// A controller whose queues have two entries was asked for eight commands.
    #[test]
    fn the_depth_is_what_both_controllers_take() {
        for (wanted, from, to, found) in
            [(None, 4095, 1023, 8), (None, 1, 4095, 1), (None, 4095, 3, 3), (Some(2), 2, 7, 2)]
        {
            assert_eq!(
                depth(wanted, [("from", from), ("to", to)]).unwrap(),
                found,
                "{wanted:?}, {from}, {to}"
            );
        }
        let error = depth(Some(8), [("from", 9), ("to", 1)]).unwrap_err().to_string();
        assert_eq!(error, "to: --depth 8: the device takes at most 1 command in a queue");
    }

    #[test]
    fn blocks_of_both_formats_begin_at_common_multiples() {
        for (a, b, wanted) in
            [(512, 512, 512), (512, 4096, 4096), (520, 512, 33280), (4160, 520, 4160), (0, 512, 0)]
        {
            assert_eq!((common_multiple(a, b), common_multiple(b, a)), (wanted, wanted), "{a} and {b}");
        }
    }
}

//! The verbs that are one command of the NVM command set each: `flush`, `dsm`, `compare`, `verify`, `write-zeroes`,
//! `write-uncor`, `copy`, with nvme-cli's names of options.

mod check;
mod copy;
mod dsm;
mod flush;
mod overwrite;
mod ranges;

pub use check::{
    COMPARE_EXAMPLES, CompareArgs, VERIFY_EXAMPLES, VerifyArgs, run_compare as compare, run_verify as verify,
};
pub use copy::{CopyArgs, EXAMPLES as COPY_EXAMPLES, run as copy};
pub use dsm::{DsmArgs, EXAMPLES as DSM_EXAMPLES, run as dsm};
pub use flush::{EXAMPLES as FLUSH_EXAMPLES, FlushArgs, run as flush};
pub use overwrite::{
    UNCOR_EXAMPLES, UncorArgs, ZEROES_EXAMPLES, ZeroesArgs, run_uncor as write_uncor,
    run_zeroes as write_zeroes,
};

use super::common::{Common, Effect};
use crate::{
    guard::Consent,
    prinfo::ProtectionArgs,
    signal,
    structures::parse,
    target::{self, Lists},
    units::number,
};
use anyhow::{Context, ensure};
use clap::Args;
use upcie_nvme::{
    Controller, Namespace, Refused, Turn, Wait,
    protection::Protect,
    spec::{NvmOpcode, Status},
};

/// The device and its namespace.
#[derive(Debug, Args)]
struct Which {
    #[command(flatten)]
    common: Common,
    /// Namespace [default: the first]
    #[arg(long, short = 'n', alias = "namespace-id", value_name = "NSID", value_parser = parse::<u32>)]
    namespace: Option<u32>,
    #[command(flatten)]
    lists: Lists,
}

impl Which {
    /// Checks what the effect needs, and opens the controller and its namespace.
    fn open(&self, effect: Effect<'_>, consent: Consent) -> anyhow::Result<(Controller, Namespace)> {
        let controller = self.common.open_with(effect, consent, self.lists.builder())?;
        let namespace = target::namespace(&controller, self.namespace)?;
        Ok((controller, namespace))
    }
}

/// The consecutive blocks of a command.
#[derive(Debug, Clone, Copy, Args)]
struct BlocksArgs {
    /// First block
    #[arg(long, short = 's', visible_alias = "lba", value_name = "LBA", value_parser = parse::<u64>, default_value = "0")]
    start_block: u64,
    /// Blocks, 0's based as nvme-cli has it: 0 is one block [default: 0; of compare, the blocks of the data]
    #[arg(long, short = 'c', value_name = "N", value_parser = parse::<u16>)]
    block_count: Option<u16>,
    /// Number of blocks, instead of --block-count
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=65536), conflicts_with = "block_count")]
    blocks: Option<u32>,
}

impl BlocksArgs {
    /// Returns the number of blocks, if the user has said it.
    fn given(&self) -> Option<u32> {
        self.blocks.or(self.block_count.map(|last| u32::from(last) + 1))
    }

    /// Returns the number of blocks: one by default.
    fn count(&self) -> u32 {
        self.given().unwrap_or(1)
    }

    /// Describes `count` blocks of a namespace, for messages.
    fn describe(&self, count: u32, namespace: &Namespace) -> String {
        let (count, nsid) = (number(count.into(), "block"), namespace.nsid());
        format!("{count} from block {} on of namespace {nsid}", self.start_block)
    }
}

/// Sends one command on a queue pair of its own, waits for it, and returns its status. `what` names it for messages.
///
/// # Errors
/// The command was refused, and not sent; or the controller did not answer.
fn send(
    which: &Which,
    controller: &Controller,
    what: &str,
    submit: impl FnOnce(&mut Turn<'_, ()>) -> Result<(), Refused<()>>,
) -> anyhow::Result<Result<(), Status>> {
    let (name, timeout) = (controller.name(), which.common.timeout);
    // A ring has two entries at least, and one of them stays empty.
    let mut queue = controller.queue_pair().depth(2).create::<()>()?;
    signal::check("nothing was sent")?;
    signal::say_that_it_waits();
    let mut turn = queue.turn()?;
    let sent = submit(&mut turn);
    drop(turn);
    sent.map_err(|refused| refused.reason).with_context(|| format!("{name}: {what} was not sent"))?;
    let is_done = queue.wait(Wait::Poll, timeout)?;
    ensure!(is_done, "{name}: {what}: no completion within {timeout:?} (--timeout); {}", queue.diagnose());
    let done = queue.turn()?.next();
    let done = done.with_context(|| format!("{name}: {what}: the completion is not there any more"))?;
    let (_, result, _) = done.into_parts();
    queue.close()?;
    Ok(result)
}

/// Sends a command like [`send`], which has to succeed.
fn run(
    which: &Which,
    controller: &Controller,
    what: &str,
    submit: impl FnOnce(&mut Turn<'_, ()>) -> Result<(), Refused<()>>,
) -> anyhow::Result<()> {
    send(which, controller, what, submit)?.with_context(|| failed(controller, what))
}

/// Returns the beginning of an error about a command that the controller has failed.
fn failed(controller: &Controller, what: &str) -> String {
    format!("{}: {what} failed", controller.name())
}

/// Names a command on consecutive blocks, for messages.
fn name_of(opcode: NvmOpcode, blocks: &BlocksArgs, count: u32, namespace: &Namespace) -> String {
    format!("{opcode} of {}", blocks.describe(count, namespace))
}

/// Returns the protection of a command's blocks; `None` if none is asked for.
///
/// # Errors
/// See [`ProtectionArgs::of`].
fn protect(args: &ProtectionArgs, namespace: &Namespace) -> anyhow::Result<Option<Protect>> {
    let found = args.of(namespace.format()).with_context(|| namespace.to_string())?;
    Ok(found.map(|protect| match args.reference() {
        Some(tag) => protect.reference_tag(tag),
        None => protect,
    }))
}

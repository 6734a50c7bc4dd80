//! A worker: opens the controller, checks all blocks, and runs the lanes; opens it again after an error.

use super::{
    SoakArgs,
    book::Wrong,
    lane::{Lane, Plan},
    load::{Load, Unfit},
    record::Record,
};
use crate::{
    cli,
    outcome::Outcome,
    perf::random::mix,
    signal,
    target::{self, Target},
};
use anyhow::{Context, bail};
use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};
use upcie_nvme::{Controller, Namespace};

/// Deadline of opening the controller again: a server that was killed has to start.
const PATIENCE: Duration = Duration::from_secs(60);
/// Time between two tries.
const PAUSE: Duration = Duration::from_millis(50);

/// Task of a worker.
#[derive(Debug, Clone, Copy)]
pub struct Job {
    pub load: Load,
    /// Number of the worker, for its random numbers.
    pub life: u64,
    /// End of the run; `None`: until a signal.
    pub until: Option<Instant>,
    /// True to check the blocks, and write none.
    pub only_verify: bool,
}

/// Runs a worker process until a signal.
pub fn run(args: &SoakArgs, record: &Path) -> anyhow::Result<Outcome> {
    // The supervisor may be killed, too.
    nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)?;
    let address = args.address.clone().context("a worker has an address")?;
    let job = Job { load: Load::of(args), life: args.life, until: None, only_verify: false };
    work(args, &Target { address }, &Record::open(record)?, job)
}

/// Works until the end that the job names, or a signal.
pub fn work(args: &SoakArgs, target: &Target, record: &Record, job: Job) -> anyhow::Result<Outcome> {
    let mut failing: Option<Instant> = None;
    for attempt in 0.. {
        let error = match once(args, target, record, job, attempt, &mut failing) {
            Ok(()) if signal::interrupted() => return Ok(Outcome::Interrupted),
            Ok(()) => return Ok(Outcome::Done),
            Err(error) => error,
        };
        if let Some(wrong) = error.downcast_ref::<Wrong>() {
            cli::message(&format!("upcie: {}: {wrong}", target.address));
            return Ok(Outcome::Faults);
        }
        if signal::interrupted() {
            return Ok(Outcome::Interrupted);
        }
        // No fault, and no lost device: another try ends the same way.
        if error.is::<Unfit>() {
            return Err(error);
        }
        let since = *failing.get_or_insert_with(Instant::now);
        if since.elapsed() > PATIENCE {
            return Err(error.context(format!(
                "{}: given up after {} s",
                target.address,
                PATIENCE.as_secs()
            )));
        }
        tracing::warn!(device = %target.address, error = format!("{error:#}"), "opening the controller again");
        let mut counts = record.counts(0)?;
        counts.reopened += 1;
        record.set_counts(0, counts)?;
        thread::sleep(PAUSE);
    }
    unreachable!("the loop has no end of its own")
}

/// Opens the controller, checks all blocks, and runs the lanes. Clears `failing` once all blocks were found.
fn once(
    args: &SoakArgs,
    target: &Target,
    record: &Record,
    job: Job,
    attempt: u64,
    failing: &mut Option<Instant>,
) -> anyhow::Result<()> {
    let controller = target.open(args.lists.builder().timeout(args.timeout))?;
    job.load.check(&controller)?;
    // After the open: a server that was killed before it has counted its loss.
    let losses = record.losses()?;
    if !losses.is_multiple_of(2) {
        bail!("{}: the server is being killed", target.address);
    }
    let namespace = target::data_namespace(&controller, args.namespace)?;
    let stop = Arc::new(AtomicBool::new(false));
    let share = record.range.blocks / job.load.threads as u64;
    let plans: Vec<_> = (0..job.load.threads)
        .map(|number| Plan {
            number,
            blocks: number as u64 * share..(number as u64 + 1) * share,
            depth: job.load.depth,
            timeout: args.timeout,
            verify: args.verify,
            seed: mix(mix(args.seed ^ mix(job.life)) ^ mix(attempt) ^ number as u64),
            until: job.until,
            stop: Arc::clone(&stop),
        })
        .collect();
    let lost = losses != record.seen()?;
    each(&controller, &namespace, record, &plans, &|lane| lane.verify(lost))?;
    if signal::interrupted() {
        return Ok(());
    }
    if record.losses()? != losses {
        bail!("{}: the server was killed", target.address);
    }
    record.set_seen(losses)?;
    *failing = None;
    if job.only_verify {
        return Ok(());
    }
    each(&controller, &namespace, record, &plans, &|lane| lane.run())?;
    // Memory of this process is gone with the controller.
    if job.until.is_some() {
        each(&controller, &namespace, record, &plans, &|lane| lane.verify(false))?;
    }
    Ok(())
}

/// Calls a function for each lane, in threads of their own. The first error ends all; wrong data comes before other errors.
fn each(
    controller: &Controller,
    namespace: &Namespace,
    record: &Record,
    plans: &[Plan],
    work: &(dyn Fn(&mut Lane<'_>) -> anyhow::Result<()> + Sync),
) -> anyhow::Result<()> {
    let one = |plan: &Plan| {
        let record = record.share()?;
        let result = Lane::new(controller, namespace, &record, plan).and_then(|mut lane| work(&mut lane));
        if result.is_err() {
            plan.stop.store(true, Ordering::Relaxed);
        }
        result
    };
    let results: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> = plans.iter().map(|plan| scope.spawn(move || one(plan))).collect();
        threads.into_iter().map(|thread| thread.join().expect("lanes do not panic")).collect()
    });
    let mut errors: Vec<_> = results.into_iter().filter_map(Result::err).collect();
    errors.sort_by_key(|error| !error.is::<Wrong>());
    errors.into_iter().next().map_or(Ok(()), Err)
}

//! The open controllers: one for each address, shared by all jobs of the process, closed with the last job.

use crate::errors::Failure;
use std::{
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicU16, Ordering},
    },
    time::Duration,
};
use upcie_nvme::{
    Address, Controller, ControllerBuilder, ErrorKind,
    spec::Arbitration,
    upcie_core::{self, device, memory::PageSize},
};

/// The properties of a controller that jobs may set differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) pages: Option<PageSize>,
    /// Set if weighted round robin arbitration is used.
    pub(crate) priorities: bool,
}

/// An open controller.
#[derive(Debug)]
pub(crate) struct Open {
    address: Address,
    wanted: Wanted,
    /// The number of queues that have interrupts.
    vectors: AtomicU16,
    pub(crate) controller: Controller,
}

impl Open {
    /// Returns a number for a queue's interrupt vector, another one at each call.
    pub(crate) fn next_vector(&self) -> u16 {
        self.vectors.fetch_add(1, Ordering::Relaxed)
    }
}

static ALL: Mutex<Vec<Weak<Open>>> = Mutex::new(Vec::new());

/// Returns the controller at `address`, and opens it if no job has it open.
pub(crate) fn open(address: &Address, wanted: Wanted) -> Result<Arc<Open>, Failure> {
    // Held while a controller is opened, so that the next job finds it.
    let mut all = ALL.lock().unwrap_or_else(PoisonError::into_inner);
    all.retain(|open| open.strong_count() > 0);
    let others: Vec<_> = all.iter().filter_map(Weak::upgrade).collect();
    if let Some(open) = others.iter().find(|open| open.address == *address) {
        for (option, same) in [
            ("upcie_hugepage", open.wanted.pages == wanted.pages),
            ("upcie_priority", open.wanted.priorities == wanted.priorities),
        ] {
            if !same {
                return Err(Failure::refused(format!(
                    "{address}: {option} applies to the whole controller, which another job has open without it, or with \
                     another value: set it in [global], or in each job"
                )));
            }
        }
        return Ok(open.clone());
    }
    let arbitration = wanted.priorities.then(weights);
    let options = Controller::builder().pages(wanted.pages).timeout(ADMIN_TIMEOUT).arbitration(arbitration);
    let controller = open_near(address, &others, options)?;
    let open = Arc::new(Open { address: address.clone(), wanted, vectors: AtomicU16::new(0), controller });
    all.push(Arc::downgrade(&open));
    Ok(open)
}

/// Returns the weights of high, medium and low priority: 8, 4 and 1, in bursts of 4 commands.
fn weights() -> Arbitration {
    Arbitration::new().with_ab(2).with_hpw(7).with_mpw(3).with_lpw(0)
}

/// Timeout of admin commands, which fio can't interrupt.
const ADMIN_TIMEOUT: Duration = Duration::from_secs(10);

/// Opens a controller in the address space of another open one if their transports can share one, so that a job's memory
/// suits both.
fn open_near(
    address: &Address,
    others: &[Arc<Open>],
    options: ControllerBuilder,
) -> Result<Controller, Failure> {
    for other in others.iter().filter(|other| address.bdf().is_some() && other.address.bdf().is_some()) {
        match options.clone().open_beside(&other.controller, address) {
            Err(error) if error.kind() == ErrorKind::Unsupported => {}
            opened => return Ok(opened?),
        }
    }
    if matches!(address, Address::Device(device::Address::VfioUser(_))) {
        // A BAR in a file that can't be sealed may shrink: that must be an error, and must not end fio.
        upcie_core::memory::survive_shrinking().map_err(upcie_nvme::Error::from)?;
    }
    Ok(options.open(address)?)
}

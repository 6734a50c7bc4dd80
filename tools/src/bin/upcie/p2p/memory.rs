//! Choice of the controller memory buffer for a copy.

use anyhow::bail;
use clap::ValueEnum;
use std::sync::Arc;
use upcie_nvme::{Controller, controller::Cmb};

/// Owner of the memory buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum BufferOwner {
    /// The controller that is read from: its commands stay inside, the other one fetches the data
    From,
    /// The controller that is written to: the first one stores the data there
    To,
}

/// Returns the controller that owns the buffer.
pub fn controller<'c>(whose: BufferOwner, from: &'c Controller, to: &'c Controller) -> &'c Controller {
    match whose {
        BufferOwner::From => from,
        BufferOwner::To => to,
    }
}

/// Finds the memory buffer to use.
///
/// # Errors
/// Fails if no wanted controller has a memory buffer that accepts data in the needed direction.
pub fn memory(
    wanted: Option<BufferOwner>,
    from: &Controller,
    to: &Controller,
) -> anyhow::Result<(BufferOwner, Arc<Cmb>)> {
    let candidates = match wanted {
        Some(one) => vec![one],
        None => vec![BufferOwner::From, BufferOwner::To],
    };
    for &whose in &candidates {
        if let Some(memory) = controller(whose, from, to).cmb()? {
            let fits = match whose {
                BufferOwner::From => memory.reads(),
                BufferOwner::To => memory.writes(),
            };
            if fits {
                return Ok((whose, memory));
            }
        }
    }
    let names: Vec<_> = candidates.iter().map(|&whose| controller(whose, from, to).name()).collect();
    bail!(
        "{}: no controller memory buffer that supports these transfers (`upcie info` shows each one)",
        names.join(", ")
    )
}

//! The controller memory buffer that a copy goes through.

use anyhow::bail;
use clap::ValueEnum;
use std::sync::Arc;
use upcie_nvme::{Controller, controller::MemoryBuffer};

/// Whose memory buffer the data goes through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Whose {
    /// The one that is read from: its commands stay inside, the other fetches the data
    From,
    /// The one that is written to: the first stores the data there
    To,
}

/// Picks one of the two controllers.
pub fn controller<'c>(whose: Whose, from: &'c Controller, to: &'c Controller) -> &'c Controller {
    match whose {
        Whose::From => from,
        Whose::To => to,
    }
}

/// Finds the memory buffer to use.
///
/// # Errors
/// Neither controller has one, or the wanted one does not; or it does not take data.
pub fn memory(
    wanted: Option<Whose>,
    from: &Controller,
    to: &Controller,
) -> anyhow::Result<(Whose, Arc<MemoryBuffer>)> {
    let candidates = match wanted {
        Some(one) => vec![one],
        None => vec![Whose::From, Whose::To],
    };
    for &whose in &candidates {
        if let Some(memory) = controller(whose, from, to).memory_buffer()? {
            let fits = match whose {
                Whose::From => memory.reads(),
                Whose::To => memory.writes(),
            };
            if fits {
                return Ok((whose, memory));
            }
        }
    }
    let names: Vec<_> = candidates.iter().map(|&whose| controller(whose, from, to).name()).collect();
    bail!(
        "{}: no controller memory buffer that takes data (`upcie info` shows what there is)",
        names.join(", ")
    )
}

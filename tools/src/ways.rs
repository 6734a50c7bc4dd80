//! Which ways lead to a function, for `upcie list`.

use crate::outcome;
use serde_json::{Value, json};
use std::error::Error as _;
use upcie_core::{
    Error,
    pci::Function,
    transport::{WayIn, ways},
};

/// The scheme of a way's address: `vfio`, `uio`, …
fn scheme(way: &WayIn) -> String {
    let text = way.address.to_string();
    text.split_once(':').map_or(text.clone(), |(scheme, _)| scheme.to_owned())
}

/// What is missing, without the function's name, which stands above it.
fn reason(error: &Error) -> String {
    match error {
        Error::Unusable { reason, .. } | Error::Unsupported { reason, .. } => reason.clone(),
        other => {
            let source = other.source().map_or_else(String::new, |source| format!(": {source}"));
            format!("{other}{source}")
        }
    }
}

/// The possible ones, and a line for each other one.
pub fn lines(function: &Function) -> Vec<String> {
    let all = ways(function);
    let possible: Vec<_> = all.iter().filter(|way| way.missing.is_none()).map(scheme).collect();
    let possible = if possible.is_empty() { "none".to_owned() } else { possible.join(", ") };
    let users = function.users();
    let users = match users[..] {
        [] => String::new(),
        [pid] => format!(" (in use by process {pid})"),
        _ => format!(" (in use by processes {})", outcome::list(&users)),
    };
    let mut lines = vec![format!("ways in: {possible}{users}")];
    for way in &all {
        if let Some(error) = &way.missing {
            lines.push(format!("not {}: {}", scheme(way), reason(error)));
        }
    }
    lines
}

/// The same for programs: each way, whether it is possible, and what is missing otherwise.
pub fn to_json(function: &Function) -> Value {
    let all = ways(function);
    let entries = all.iter().map(|way| {
        let missing = way.missing.as_ref().map(reason);
        json!({
            "way": scheme(way), "address": way.address.to_string(), "possible": missing.is_none(), "missing": missing,
        })
    });
    entries.collect()
}

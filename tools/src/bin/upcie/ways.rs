//! Which ways lead to a function, for `upcie list`.

use crate::outcome;
use serde_json::{Value, json};
use std::error::Error as _;
use upcie_core::{Error, Transport, pci::Function, probe};
use upcie_tools::usage::{Host, Use};

/// The scheme of a way's address: `vfio`, `uio`, …
fn scheme(way: &Transport) -> String {
    let text = way.address.to_string();
    text.split_once(':').map_or(text.clone(), |(scheme, _)| scheme.to_owned())
}

/// What is missing, without the function's name, which stands above it.
fn reason(function: &Function, error: &Error) -> String {
    let bdf = function.bdf.to_string();
    match error {
        // It may be about something else: a mount, say.
        Error::Unusable { device, reason } | Error::Unsupported { device, reason, .. }
            if device.contains(&bdf) =>
        {
            reason.clone()
        }
        other => {
            let source = other.source().map_or_else(String::new, |source| format!(": {source}"));
            let text = format!("{other}{source}");
            text.strip_prefix(&format!("{bdf}: ")).unwrap_or(&text).to_owned()
        }
    }
}

/// What the kernel uses the disks of a function for; empty if it does not.
pub fn disk_uses(function: &Function, host: &Host) -> String {
    let uses = host.disk_uses(&host.blocks(&function.path));
    uses.iter().map(Use::to_string).collect::<Vec<_>>().join(", ")
}

/// The possible ones, and for the others what is missing, in lines of at most [`WIDTH`].
pub fn lines(function: &Function, host: &Host) -> Vec<String> {
    if let Err(error) = function.check_not_being_unbound() {
        return wrap(&format!("ways in: none: {}", reason(function, &error)));
    }
    let uses = disk_uses(function, host);
    if !uses.is_empty() {
        return wrap(&format!("ways in: none while it is in use: {uses}"));
    }
    let all = probe(function);
    let possible: Vec<_> = all.iter().filter(|way| way.missing.is_none()).map(scheme).collect();
    let possible = if possible.is_empty() { "none".to_owned() } else { possible.join(", ") };
    let users = function.users();
    let users = match users[..] {
        [] => String::new(),
        [pid] => format!(" (in use by process {pid})"),
        _ => format!(" (in use by processes {})", outcome::list(&users)),
    };
    let mut lines = vec![format!("ways in: {possible}{users}")];
    // Ways that lack the same share the words.
    let mut missing: Vec<(String, Vec<String>)> = Vec::new();
    for (way, error) in all.iter().filter_map(|way| Some((way, way.missing.as_ref()?))) {
        let reason = reason(function, error);
        match missing.iter_mut().find(|(other, _)| *other == reason) {
            Some((_, schemes)) => schemes.push(scheme(way)),
            None => missing.push((reason, vec![scheme(way)])),
        }
    }
    for (reason, schemes) in missing {
        lines.extend(wrap(&format!("not {}: {reason}", schemes.join(", "))));
    }
    lines
}

/// Columns that a line may take, besides the list's indentation.
const WIDTH: usize = 76;

/// Breaks a text into lines, the later ones indented. What is in backquotes is for copying, and stays in one piece.
fn wrap(text: &str) -> Vec<String> {
    let mut lines = Vec::new();
    let (mut line, mut word, mut is_quoted) = (String::new(), String::new(), false);
    for c in text.chars().chain([' ']) {
        is_quoted ^= c == '`';
        if c != ' ' || is_quoted {
            word.push(c);
            continue;
        }
        if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > WIDTH {
            lines.push(std::mem::replace(&mut line, "   ".into()));
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(&std::mem::take(&mut word));
    }
    if !word.is_empty() {
        // A quote that does not end.
        line = format!("{line} {}", word.trim_end());
    }
    lines.push(line);
    lines
}

/// The same for programs: each way, whether it is possible, and what is missing otherwise.
pub fn to_json(function: &Function, host: &Host) -> Value {
    let all = if function.is_nvme() { probe(function) } else { Vec::new() };
    let unbinding = function.check_not_being_unbound().err();
    let uses = disk_uses(function, host);
    let entries = all.iter().map(|way| {
        let error = unbinding.as_ref().or(way.missing.as_ref());
        let missing = if uses.is_empty() {
            error.map(|error| reason(function, error))
        } else {
            Some(format!("it is in use: {uses}"))
        };
        json!({
            "way": scheme(way), "address": way.address.to_string(), "possible": missing.is_none(), "missing": missing,
        })
    });
    entries.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_broken_between_words_but_not_in_a_command() {
        let command = "`devbind bind vfio-pci 0000:01:00.0 --unsafe-noiommu`";
        let text =
            format!("not noiommu: the mode is off, and to turn it on, as root: {command}; then, it is on");
        let lines = wrap(&text);
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert!(lines.iter().all(|line| line.len() <= WIDTH), "{lines:?}");
        assert!(lines[1].starts_with(&format!("    {command}; then")), "{lines:?}");
        assert_eq!(
            lines.join(" ").split_whitespace().collect::<Vec<_>>(),
            text.split(' ').collect::<Vec<_>>()
        );
        assert_eq!(wrap("short"), ["short"]);
        assert_eq!(wrap("an `open quote"), ["an `open quote"]);
        assert_eq!(wrap(&"x".repeat(WIDTH + 9)).len(), 1);
    }
}

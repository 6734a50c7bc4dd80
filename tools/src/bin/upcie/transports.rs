//! Lists the transports that can drive a function, for `upcie list`.

use crate::outcome;
use serde_json::{Value, json};
use upcie_core::{Chain, Error, Failure, Transport, pci::Function, probe};
use upcie_tools::usage::{Host, Use};

/// Returns the scheme of the transport's address: `vfio`, `uio`, …
fn scheme(transport: &Transport) -> String {
    let text = transport.address.to_string();
    text.split_once(':').map_or(text.clone(), |(scheme, _)| scheme.to_owned())
}

/// Formats what is missing. Drops the function's name, which is printed above it.
fn reason(function: &Function, error: &Error) -> String {
    let bdf = function.bdf.to_string();
    let is_of_function = error.device().is_some_and(|device| device.contains(&bdf));
    match error.failure() {
        // An error without the name may be about something else, such as a mount.
        Failure::Unusable { reason, .. } | Failure::Unsupported { reason, .. } if is_of_function => {
            reason.clone()
        }
        _ => {
            let text = Chain(error).to_string();
            text.strip_prefix(&format!("{bdf}: ")).unwrap_or(&text).to_owned()
        }
    }
}

/// Lists what the kernel uses the function's disks for; empty if nothing.
pub fn disk_uses(function: &Function, host: &Host) -> String {
    let uses = host.disk_uses(&host.blocks(&function.path));
    uses.iter().map(Use::to_string).collect::<Vec<_>>().join(", ")
}

/// Lists the usable transports and, for the others, what is missing, in lines of at most [`WIDTH`].
pub fn lines(function: &Function, host: &Host) -> Vec<String> {
    if let Err(error) = function.check_not_being_unbound() {
        return wrap(&format!("transports: none: {}", reason(function, &error)));
    }
    let uses = disk_uses(function, host);
    if !uses.is_empty() {
        return wrap(&format!("transports: none while it is in use: {uses}"));
    }
    let all = probe(function);
    let possible: Vec<_> = all.iter().filter(|one| one.missing.is_none()).map(scheme).collect();
    let possible = if possible.is_empty() { "none".to_owned() } else { possible.join(", ") };
    let users = function.users();
    let users = match users[..] {
        [] => String::new(),
        [pid] => format!(" (in use by process {pid})"),
        _ => format!(" (in use by processes {})", outcome::list(&users)),
    };
    let mut lines = vec![format!("transports: {possible}{users}")];
    // Transports that lack the same share a line.
    let mut missing: Vec<(String, Vec<String>)> = Vec::new();
    for (transport, error) in all.iter().filter_map(|one| Some((one, one.missing.as_ref()?))) {
        let reason = reason(function, error);
        match missing.iter_mut().find(|(other, _)| *other == reason) {
            Some((_, schemes)) => schemes.push(scheme(transport)),
            None => missing.push((reason, vec![scheme(transport)])),
        }
    }
    for (reason, schemes) in missing {
        lines.extend(wrap(&format!("not {}: {reason}", schemes.join(", "))));
    }
    lines
}

/// Columns of a line without the list's indentation.
const WIDTH: usize = 76;

/// Breaks a text into lines, indenting all but the first. Text in backquotes is meant to be copied, and is
/// not broken.
pub fn wrap(text: &str) -> Vec<String> {
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
        // The quote has no end.
        line = format!("{line} {}", word.trim_end());
    }
    lines.push(line);
    lines
}

/// Lists each transport for programs: its address, and what is missing.
pub fn to_json(function: &Function, host: &Host) -> Value {
    let all = if function.is_nvme() { probe(function) } else { Vec::new() };
    let unbinding = function.check_not_being_unbound().err();
    let uses = disk_uses(function, host);
    let entries = all.iter().map(|transport| {
        let error = unbinding.as_ref().or(transport.missing.as_ref());
        let missing = if uses.is_empty() {
            error.map(|error| reason(function, error))
        } else {
            Some(format!("it is in use: {uses}"))
        };
        json!({
            "transport": scheme(transport), "address": transport.address.to_string(), "possible": missing.is_none(), "missing": missing,
        })
    });
    entries.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_break_between_words_but_not_in_a_command() {
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

//! Checks that the documentation of each type from which someone starts has an example.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::cargo::Workspace;
use crate::checks::words::sources;

/// The types that a program makes, opens, gets first, or implements. A new one of this kind belongs here.
const STARTS: [(&str, &str); 2] = [
    (
        "upcie-core",
        "Address Backend Bar Bdf Binder Clock Device DmaBuf DmaSpace EventFd Function Heap Listener Mapper Mapping Memory \
         PageSize Region Register Server SharedRegion Stopwatch UioDevice VfioDevice VfioUserDevice",
    ),
    (
        "upcie-nvme",
        "Address AsyncHandle AsyncQueue BlockFormat BootPartitions Cancel Cmb Completion Controller ControllerBuilder \
         Emulator Event Events FaultPlan GroupMember Io KeyCommand KeyValue Lockstep Machine Media Namespace Options \
         Placement Pmr Protect QueueGroup QueuePair QueuePairBuilder Refused ReservationCommand Reservations Returned \
         Stream Turn Wait WithMetadata Zeroes Zones",
    ),
];

pub fn check(workspace: &Workspace) -> Result<()> {
    let mut missing = Vec::new();
    for (package, names) in STARTS {
        let shown = types_with_examples(&workspace.root.join(package).join("src"))?;
        let lacks = names.split_whitespace().filter(|name| !shown.iter().any(|shown| shown == name));
        missing.extend(lacks.map(|name| format!("{package}: {name}")));
    }
    if !missing.is_empty() {
        bail!("these types need an example in their documentation:\n{}", missing.join("\n"));
    }
    Ok(())
}

/// Lists the public types and traits below a directory whose documentation has an example.
fn types_with_examples(directory: &Path) -> Result<Vec<String>> {
    let (mut files, mut names) = (Vec::new(), Vec::new());
    sources(directory, &mut files)?;
    for file in &files {
        let text = fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
        names.extend(in_text(&text).map(str::to_owned));
    }
    Ok(names)
}

fn in_text(text: &str) -> impl Iterator<Item = &str> {
    let (mut has_example, mut attribute) = (false, 0_usize);
    text.lines().map(str::trim).filter_map(move |line| {
        if let Some(doc) = line.strip_prefix("///") {
            has_example |= doc.trim().starts_with("```");
        } else if attribute > 0 || line.starts_with("#[") {
            // An attribute may span several lines.
            attribute += line.matches('[').count();
            attribute = attribute.saturating_sub(line.matches(']').count());
        } else if !line.starts_with("//") {
            return std::mem::take(&mut has_example).then(|| name(line)).flatten();
        }
        None
    })
}

/// Returns the name of the public type or trait that a line begins to define.
fn name(line: &str) -> Option<&str> {
    let item = line.strip_prefix("pub ")?;
    let item = item.strip_prefix("unsafe ").unwrap_or(item);
    let rest = ["struct ", "enum ", "trait "].iter().find_map(|kind| item.strip_prefix(kind))?;
    rest.split(|c: char| !c.is_alphanumeric() && c != '_').next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_example_belongs_to_the_next_type() {
        let text = "/// Has one.\n/// ```\n/// f();\n/// ```\n// Why.\n#[derive(\n    Debug,\n)]\npub struct One<T>(T);\n\n\
                    /// Has none.\npub unsafe trait Two {\n    /// ```\n    /// ```\n    fn f();\n}\npub enum Three {}\n";
        assert_eq!(in_text(text).collect::<Vec<_>>(), ["One"]);
    }
}

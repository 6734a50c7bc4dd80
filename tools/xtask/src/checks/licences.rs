//! Checks that fio's engine may be distributed together with fio, which is under GPL-2.0-only: each linked
//! package must offer a compatible licence. Apache-2.0 alone is not compatible.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::cargo::Workspace;
use crate::process;

const PACKAGE: &str = "upcie-fio";
/// Licences that are compatible with GPL-2.0-only.
const FITTING: &[&str] =
    &["MIT", "BSD-2-Clause", "BSD-3-Clause", "ISC", "Zlib", "Unlicense", "0BSD", "CC0-1.0"];

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    resolve: Resolve,
}

#[derive(Deserialize)]
struct Package {
    id: String,
    name: String,
    license: Option<String>,
    targets: Vec<Target>,
}

#[derive(Deserialize)]
struct Target {
    kind: Vec<String>,
}

#[derive(Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Deserialize)]
struct Node {
    id: String,
    deps: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    pkg: String,
    dep_kinds: Vec<Kind>,
}

#[derive(Deserialize)]
struct Kind {
    /// `None` for a normal dependency, which is linked.
    kind: Option<String>,
}

pub fn check(workspace: &Workspace) -> Result<()> {
    let arguments =
        ["metadata", "--format-version", "1", "--locked", "--filter-platform", "x86_64-unknown-linux-gnu"];
    let text = process::output(&mut workspace.cargo(&arguments))?;
    let metadata: Metadata = serde_json::from_str(&text).context("cargo metadata")?;
    let linked = linked(&metadata)?;
    if linked.len() < 5 {
        bail!("{PACKAGE} links only {} packages: this check must be wrong", linked.len());
    }
    for package in linked {
        let licence = package.license.as_deref().unwrap_or_default();
        if !fits(licence) {
            bail!(
                "{} is linked into fio's engine, but its licence ({licence:?}) is not compatible with fio's (GPL-2.0-only): leave it \
                 out",
                package.name
            );
        }
    }
    Ok(())
}

/// Lists the packages that are linked into the engine, without macros and build scripts.
fn linked(metadata: &Metadata) -> Result<Vec<&Package>> {
    let packages: BTreeMap<_, _> = metadata.packages.iter().map(|package| (&package.id, package)).collect();
    let nodes: BTreeMap<_, _> = metadata.resolve.nodes.iter().map(|node| (&node.id, node)).collect();
    let first = metadata.packages.iter().find(|package| package.name == PACKAGE);
    let mut open = vec![&first.with_context(|| format!("no package {PACKAGE}"))?.id];
    let mut seen = BTreeSet::new();
    while let Some(id) = open.pop() {
        let package = packages.get(id).with_context(|| format!("no package {id}"))?;
        let is_macro =
            package.targets.iter().any(|target| target.kind.iter().any(|kind| kind == "proc-macro"));
        if is_macro || !seen.insert(id) {
            continue;
        }
        let node = nodes.get(id).with_context(|| format!("{id} is not resolved"))?;
        let linked =
            node.deps.iter().filter(|dependency| dependency.dep_kinds.iter().any(|kind| kind.kind.is_none()));
        open.extend(linked.map(|dependency| &dependency.pkg));
    }
    Ok(seen.into_iter().filter_map(|id| packages.get(id).copied()).collect())
}

/// Returns true if the expression allows a choice of compatible licences only. `A/B` is an old form of `A OR
/// B`.
fn fits(expression: &str) -> bool {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let words: Vec<_> = spaced.split_whitespace().collect();
    let mut rest = &words[..];
    any(&mut rest) && rest.is_empty()
}

fn any(words: &mut &[&str]) -> bool {
    let mut fits = all(words);
    while let ["OR", rest @ ..] = *words {
        *words = rest;
        // `||` would leave words unread.
        fits |= all(words);
    }
    fits
}

fn all(words: &mut &[&str]) -> bool {
    let mut fits = one(words);
    while let ["AND", rest @ ..] = *words {
        *words = rest;
        fits &= one(words);
    }
    fits
}

fn one(words: &mut &[&str]) -> bool {
    match *words {
        ["(", rest @ ..] => {
            *words = rest;
            let fits = any(words);
            let [")", rest @ ..] = *words else { return false };
            *words = rest;
            fits
        }
        // An exception only adds permissions.
        [licence, "WITH", _, rest @ ..] | [licence, rest @ ..] => {
            *words = rest;
            FITTING.contains(licence)
        }
        [] => false,
    }
}

#[cfg(test)]
mod tests {
    use super::fits;

    #[test]
    fn a_choice_compatible_with_gpl_2_is_needed() {
        for yes in [
            "MIT",
            "MIT OR Apache-2.0",
            "Apache-2.0/MIT",
            "BSD-2-Clause OR Apache-2.0 OR MIT",
            "Unlicense OR MIT",
            "(MIT OR Apache-2.0) AND ISC",
            "Apache-2.0 WITH LLVM-exception OR Apache-2.0 OR MIT",
        ] {
            assert!(fits(yes), "{yes}");
        }
        for no in [
            "",
            "Apache-2.0",
            "MIT AND Apache-2.0",
            "(MIT OR Apache-2.0) AND Apache-2.0",
            "MPL-2.0",
            "(MIT",
            "MIT MIT",
            "Apache-2.0 WITH LLVM-exception",
            "Apache-2.0 OR",
        ] {
            assert!(!fits(no), "{no}");
        }
    }
}

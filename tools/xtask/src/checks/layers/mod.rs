//! Checks that the libraries' modules import each other as ARCHITECTURE.md lists it: no import points up, and
//! no files import each other.

mod graph;
mod list;
mod source;
mod tokens;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::cargo::Workspace;

use self::graph::{Edge, Graph, circles};
use self::list::List;

/// Document with the lists.
const DOCUMENT: &str = "ARCHITECTURE.md";
const PACKAGES: [&str; 2] = ["upcie-core", "upcie-nvme"];

pub fn check(workspace: &Workspace) -> Result<()> {
    let document = fs::read_to_string(workspace.root.join(DOCUMENT)).context(DOCUMENT)?;
    let mut problems = Vec::new();
    for package in PACKAGES {
        let list = list::read(&document, package).context(DOCUMENT)?;
        let graph = Graph::read(&workspace.root.join(package).join("src"))?;
        problems.extend(compare(&graph, &list, &workspace.root));
    }
    if !problems.is_empty() {
        bail!("{}", problems.join("\n"));
    }
    Ok(())
}

/// Lists the problems, one per line, with paths relative to `root`.
fn compare(graph: &Graph, list: &List, root: &Path) -> Vec<String> {
    let edges = graph.edges();
    let show = |path: &Path| path.strip_prefix(root).unwrap_or(path).display().to_string();
    let place = |edge: &Edge| format!("{}:{}", show(&edge.from), edge.line);
    // Edges for each pair of modules that import each other.
    let mut pairs: BTreeMap<(&str, &str), Vec<&Edge>> = BTreeMap::new();
    for edge in &edges {
        if let (Some(from), Some(to)) = (graph.top_of(&edge.from), graph.top_of(&edge.to))
            && from != to
        {
            pairs.entry((from, to)).or_default().push(edge);
        }
    }
    let mut problems = Vec::new();
    for (&(from, to), edges) in &pairs {
        if list.modules.get(from).is_some_and(|module| module.imports.iter().any(|name| name == to)) {
            continue;
        }
        let back = pairs.get(&(to, from)).and_then(|back| back.first());
        let back =
            back.map(|edge| format!(", and {to} imports {from} ({})", place(edge))).unwrap_or_default();
        problems.extend(edges.iter().map(|edge| {
            format!("{}: {from} imports {to}, which is not on the list in {DOCUMENT}{back}", place(edge))
        }));
    }
    for (module, entry) in &list.modules {
        if !graph.top_modules().any(|name| name == module) {
            problems.push(format!("{DOCUMENT}:{}: there is no module {module}", entry.line));
        }
        for name in &entry.imports {
            if !pairs.contains_key(&(module.as_str(), name.as_str())) {
                problems.push(format!(
                    "{DOCUMENT}:{}: {module} imports nothing of {name}: take it off the list",
                    entry.line
                ));
            }
        }
    }
    let unlisted = graph.top_modules().filter(|name| !list.modules.contains_key(*name));
    problems.extend(unlisted.map(|name| format!("{DOCUMENT}: the module {name} has no line in its list")));
    let misplaced = graph.misplaced_roots();
    problems.extend(
        misplaced.map(|file| format!("{}: a module with files below it stands in mod.rs", show(file))),
    );
    let mut seen = BTreeSet::new();
    for circle in circles(&edges) {
        let modules: BTreeSet<_> =
            circle.iter().map(|edge| graph.top_of(&edge.from).unwrap_or_default()).collect();
        let to_go =
            list.circles.iter().map(|(module, _)| module.as_str()).find(|module| modules == [*module].into());
        if let Some(module) = to_go {
            seen.insert(module);
            continue;
        }
        let steps = circle.iter().map(|edge| format!("{} imports {}", place(edge), show(&edge.to)));
        problems.push(format!("a circle: {}", steps.collect::<Vec<_>>().join("; ")));
    }
    let straight = list.circles.iter().filter(|(module, _)| !seen.contains(module.as_str()));
    problems.extend(straight.map(|(module, line)| {
        format!("{DOCUMENT}:{line}: no files of {module} import each other: take it off the list")
    }));
    problems
}

#[cfg(test)]
mod tests;

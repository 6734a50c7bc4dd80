//! Reads the list of a crate's layers from ARCHITECTURE.md.
//!
//! ````text
//! ```layers upcie-core
//! open → device, vfio
//! vfio → device
//! device
//! circles to go: vfio
//! ```
//! ````
//! Each line names the modules that a module imports. The imported modules come on later lines, so no import
//! points up. An import in parentheses is to be removed and may point up. An optional last line names the
//! modules whose files still import each other.

use std::collections::BTreeMap;

use anyhow::{Result, bail};

#[derive(Debug, Default, PartialEq, Eq)]
pub struct List {
    /// Modules by name.
    pub modules: BTreeMap<String, Module>,
    /// Modules whose files may import each other, with the line number of that entry.
    pub circles: Vec<(String, usize)>,
}

#[derive(Debug, PartialEq, Eq)]
pub struct Module {
    pub line: usize,
    pub imports: Vec<String>,
}

/// Reads the list of `package`.
pub fn read(document: &str, package: &str) -> Result<List> {
    let head = format!("```layers {package}");
    let mut lines = document.lines().enumerate().skip_while(|(_, line)| *line != head);
    if lines.next().is_none() {
        bail!("no block begins with {head}");
    }
    let mut list = List::default();
    let mut down = Vec::new();
    for (index, line) in lines.take_while(|(_, line)| *line != "```") {
        let number = index + 1;
        if let Some(modules) = line.strip_prefix("circles to go:") {
            list.circles.extend(modules.split(',').map(|module| (module.trim().to_owned(), number)));
            continue;
        }
        let (module, imports) = line.split_once('→').unwrap_or((line, ""));
        let module = module.trim().to_owned();
        let mut names = Vec::new();
        for name in imports.split(',').map(str::trim).filter(|name| !name.is_empty()) {
            let to_go = name.strip_prefix('(').and_then(|name| name.strip_suffix(')'));
            if to_go.is_none() {
                down.push((number, module.clone(), name.to_owned()));
            }
            names.push(to_go.unwrap_or(name).to_owned());
        }
        if list.modules.insert(module.clone(), Module { line: number, imports: names }).is_some() {
            bail!("line {number}: {module} has a line already");
        }
    }
    for (number, module, name) in down {
        match list.modules.get(&name) {
            None => bail!("line {number}: {module} imports {name}, which has no line"),
            Some(other) if other.line <= number => {
                bail!("line {number}: {module} imports {name}, which is not below it")
            }
            Some(_) => {}
        }
    }
    Ok(list)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(block: &str) -> String {
        read(&format!("text\n```layers x\n{block}\n```\n"), "x").unwrap_err().to_string()
    }

    #[test]
    fn a_list_is_read_with_its_lines() {
        let list = read(
            "```layers y\nz\n```\n```layers x\na → b, (c)\nc → b\nb\ncircles to go: a, b\n```\nmore → text",
            "x",
        )
        .unwrap();
        let module = |line, imports: &[&str]| Module {
            line,
            imports: imports.iter().map(|&name| name.into()).collect(),
        };
        let expected = [("a", module(5, &["b", "c"])), ("b", module(7, &[])), ("c", module(6, &["b"]))];
        assert_eq!(list.modules, expected.map(|(name, module)| (name.to_owned(), module)).into());
        assert_eq!(list.circles, ["a", "b"].map(|name| (name.to_owned(), 8)));
    }

    #[test]
    fn an_import_must_point_down() {
        assert_eq!(error("b\na → b"), "line 4: a imports b, which is not below it");
        assert_eq!(error("a → a"), "line 3: a imports a, which is not below it");
        assert_eq!(error("a → b"), "line 3: a imports b, which has no line");
        assert_eq!(error("a\na"), "line 4: a has a line already");
        assert!(read("text", "x").is_err());
    }
}

//! Graph of a crate's files and their imports.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path as FilePath, PathBuf};

use anyhow::{Context, Result, bail};

use super::source::{Path, Source};

/// Limit of the re-exports that are followed for one name.
const MAX_HOPS: usize = 16;

/// An import: the file `from` uses something that the file `to` defines.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Edge {
    pub from: PathBuf,
    pub to: PathBuf,
    pub line: usize,
}

#[derive(Debug, Default)]
pub struct Graph {
    /// File of each module; for an inline module the file that contains it.
    files: BTreeMap<Path, PathBuf>,
    sources: BTreeMap<PathBuf, (Path, Source)>,
}

impl Graph {
    /// Reads the crate whose `lib.rs` is in `directory`: every declared module except those for tests.
    pub fn read(directory: &FilePath) -> Result<Self> {
        let mut graph = Self::default();
        let mut open = vec![(Path::new(), directory.join("lib.rs"))];
        while let Some((module, file)) = open.pop() {
            let text = fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
            let source = Source::read(module.clone(), &text);
            for child in &source.children {
                open.push((child.clone(), file_of(&file, &module, child)?));
            }
            graph.add(module, file, source);
        }
        Ok(graph)
    }

    fn add(&mut self, module: Path, file: PathBuf, source: Source) {
        for inline in &source.inline {
            self.files.insert(inline.clone(), file.clone());
        }
        self.files.insert(module.clone(), file.clone());
        self.sources.insert(file, (module, source));
    }

    /// Lists the modules directly below the crate's root that have their own files.
    pub fn top_modules(&self) -> impl Iterator<Item = &str> {
        let modules = self.sources.values().map(|(module, _)| module);
        modules.filter(|module| module.len() == 1).map(|module| module[0].as_str())
    }

    /// Returns the top module that `file` belongs to; `None` for `lib.rs`.
    pub fn top_of(&self, file: &FilePath) -> Option<&str> {
        self.sources.get(file).and_then(|(module, _)| module.first()).map(String::as_str)
    }

    /// Lists files other than `lib.rs` and `mod.rs` that have modules below them.
    pub fn misplaced_roots(&self) -> impl Iterator<Item = &FilePath> {
        let is_root = |file: &FilePath| file.ends_with("lib.rs") || file.ends_with("mod.rs");
        let parents = self.sources.iter().filter(|(_, (_, source))| !source.children.is_empty());
        parents.map(|(file, _)| file.as_path()).filter(move |file| !is_root(file))
    }

    /// Lists all imports, once per pair of files and line. A re-export counts only in a file that uses the
    /// name itself.
    pub fn edges(&self) -> BTreeSet<Edge> {
        let mut edges = BTreeSet::new();
        for (file, (_, source)) in &self.sources {
            let imports = source.imports.iter().filter(|import| {
                let is_used = import.name.as_ref().is_some_and(|name| source.words.contains(name));
                !import.exported || is_used
            });
            let imports = imports.map(|import| (&import.scope, &import.path, import.line));
            let mentions =
                source.mentions.iter().map(|mention| (&mention.scope, &mention.path, mention.line));
            for (scope, path, line) in imports.chain(mentions) {
                let to =
                    self.absolute(scope, path, MAX_HOPS).and_then(|path| self.definition(&path, MAX_HOPS));
                if let Some(to) = to.filter(|to| *to != file) {
                    edges.insert(Edge { from: file.clone(), to: to.clone(), line });
                }
            }
        }
        edges
    }

    fn source(&self, module: &[String]) -> Option<&Source> {
        self.files.get(module).and_then(|file| self.sources.get(file)).map(|(_, source)| source)
    }

    /// Resolves a path from the crate's root; `None` if it leads to another crate, or is not a path of
    /// modules.
    fn absolute(&self, scope: &Path, path: &[String], hops: usize) -> Option<Path> {
        let hops = hops.checked_sub(1)?;
        let (first, mut rest) = path.split_first()?;
        let mut base = match first.as_str() {
            "crate" => Path::new(),
            "self" => scope.clone(),
            "super" => scope.split_last()?.1.to_vec(),
            name => {
                let child: Path = scope.iter().chain([first]).cloned().collect();
                if self.files.contains_key(&child) {
                    child
                } else {
                    let imports = self.source(scope)?.imports.iter();
                    let mut imports = imports.filter(|import| import.scope == *scope);
                    let import = imports.find(|import| import.name.as_deref() == Some(name))?;
                    self.absolute(scope, &import.path, hops)?
                }
            }
        };
        while let Some((_, after)) = rest.split_first().filter(|(first, _)| *first == "super") {
            base.pop()?;
            rest = after;
        }
        Some(base.into_iter().chain(rest.iter().cloned()).collect())
    }

    /// Finds the file that defines an absolute path, through re-exports.
    fn definition(&self, path: &[String], hops: usize) -> Option<&PathBuf> {
        let hops = hops.checked_sub(1)?;
        let depth = (0..=path.len()).rev().find(|&depth| self.files.contains_key(&path[..depth]))?;
        let (module, rest) = path.split_at(depth);
        let file = self.files.get(module)?;
        let (Some((name, after)), Some(source)) = (rest.split_first(), self.source(module)) else {
            return Some(file);
        };
        if source.items.contains(&(module.to_vec(), name.clone())) {
            return Some(file);
        }
        let imports = || source.imports.iter().filter(|import| import.scope == module);
        let named = imports().find(|import| import.name.as_ref() == Some(name));
        if let Some(import) = named {
            let mut target = self.absolute(&import.scope, &import.path, hops)?;
            target.extend(after.iter().cloned());
            return self.definition(&target, hops);
        }
        let globs = imports().filter(|import| import.glob);
        let mut targets = globs.filter_map(|import| self.absolute(&import.scope, &import.path, hops));
        let through = targets.find_map(|mut target| {
            target.extend(rest.iter().cloned());
            let found = self.definition(&target, hops)?;
            let (module, source) = self.sources.get(found)?;
            source
                .items
                .iter()
                .any(|(scope, item)| scope.starts_with(module) && item == name)
                .then_some(found)
        });
        Some(through.unwrap_or(file))
    }
}

/// Finds circles of files that import each other, one circle for every group of such files.
pub fn circles(edges: &BTreeSet<Edge>) -> Vec<Vec<Edge>> {
    let mut next: BTreeMap<&PathBuf, Vec<&Edge>> = BTreeMap::new();
    for edge in edges {
        next.entry(&edge.from).or_default().push(edge);
    }
    let mut found: Vec<Vec<Edge>> = Vec::new();
    let mut knotted: BTreeSet<&PathBuf> = BTreeSet::new();
    for &start in next.keys() {
        if knotted.contains(start) {
            continue;
        }
        let reached = reach(start, &next);
        if let Some(circle) = find_cycle(start, &next, &reached) {
            knotted.extend(reached.keys().filter(|file| reach(file, &next).contains_key(start)));
            found.push(circle);
        }
    }
    found
}

/// Finds the edge by which each file is first reached from `start`, including `start` itself if a path leads
/// back.
fn reach<'a>(
    start: &PathBuf,
    next: &BTreeMap<&'a PathBuf, Vec<&'a Edge>>,
) -> BTreeMap<&'a PathBuf, &'a Edge> {
    let mut reached = BTreeMap::new();
    let mut open = std::collections::VecDeque::from([start]);
    while let Some(file) = open.pop_front() {
        for &edge in next.get(file).into_iter().flatten() {
            if !reached.contains_key(&edge.to) {
                reached.insert(&edge.to, edge);
                open.push_back(&edge.to);
            }
        }
    }
    reached
}

fn find_cycle(
    start: &PathBuf,
    next: &BTreeMap<&PathBuf, Vec<&Edge>>,
    reached: &BTreeMap<&PathBuf, &Edge>,
) -> Option<Vec<Edge>> {
    debug_assert!(next.contains_key(start));
    let mut edge = *reached.get(start)?;
    let mut circle = vec![edge.clone()];
    while edge.from != *start {
        edge = reached.get(&edge.from)?;
        circle.push(edge.clone());
    }
    circle.reverse();
    Some(circle)
}

/// Finds the file of the module `child`, which is declared in the `file` of `module`.
fn file_of(file: &FilePath, module: &Path, child: &Path) -> Result<PathBuf> {
    let mut directory = file.with_file_name("");
    if !(file.ends_with("lib.rs") || file.ends_with("mod.rs")) {
        directory = file.with_extension("");
    }
    // A module inside an inline module has its file below directories of that name.
    directory.extend(&child[module.len()..]);
    let (plain, root) = (directory.with_extension("rs"), directory.join("mod.rs"));
    match (plain.exists(), root.exists()) {
        (true, false) => Ok(plain),
        (false, true) => Ok(root),
        _ => bail!("{}: found no file, or two files, for the module {}", file.display(), child.join("::")),
    }
}

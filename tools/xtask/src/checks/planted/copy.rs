//! The copy of the sources with the planted bugs.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::mutants::{MUTANTS, Mutant};

/// The packages that the simulation is built from.
const PACKAGES: [&str; 3] = ["upcie-core", "upcie-nvme", "tests/simulation"];
/// The manifest whose program gets a name of its own, and the root of the crate that tells which bug is at work.
const PROGRAM: &str = "tests/simulation/Cargo.toml";
const TELLER: &str = "upcie-core/src/lib.rs";
/// Stands in a mutant's text for the condition that it is at work.
const ON: &str = "$on";

/// Makes or renews the copy in `directory`. Files that stay the same keep their times, so that cargo builds little.
///
/// The copy's packages have another version: cargo takes packages of one name and version for the same, wherever they are,
/// and both share a target directory.
pub fn make(root: &Path, directory: &Path, variable: &str, version: &str) -> Result<()> {
    let mut kept = BTreeSet::new();
    for package in PACKAGES {
        let mut files = Vec::new();
        list(&root.join(package), &mut files)?;
        for from in files {
            let name = from.strip_prefix(root)?.to_owned();
            let to = directory.join(&name);
            let bytes = fs::read(&from).with_context(|| format!("reading {}", from.display()))?;
            renew(&to, &content(&name, bytes, variable)?)?;
            kept.insert(to);
        }
    }
    for mutant in MUTANTS {
        if !kept.contains(&directory.join(mutant.file)) {
            bail!("planted bug {:?}: there is no file {}", mutant.name, mutant.file);
        }
    }
    let mut files = Vec::new();
    for package in PACKAGES {
        list(&directory.join(package), &mut files)?;
    }
    for file in files.iter().filter(|file| !kept.contains(*file)) {
        fs::remove_file(file)?;
    }
    let manifest = fs::read_to_string(root.join("Cargo.toml"))?;
    let lines = manifest.lines().filter(|line| !line.starts_with("default-members"));
    let lines = lines.map(|line| match line.starts_with("members") {
        true => format!("members = {PACKAGES:?}\n"),
        false => line.replace(&format!("\"{version}\""), &format!("\"{version}-planted\"")) + "\n",
    });
    renew(&directory.join("Cargo.toml"), lines.collect::<String>().as_bytes())?;
    let lock = directory.join("Cargo.lock");
    // Cargo leaves out what the copy does not need: write it once.
    if !lock.exists() {
        fs::copy(root.join("Cargo.lock"), lock)?;
    }
    Ok(())
}

/// Returns the content of a file of the copy.
fn content(name: &Path, bytes: Vec<u8>, variable: &str) -> Result<Vec<u8>> {
    let mutants = (1..).zip(MUTANTS).filter(|(_, mutant)| name == Path::new(mutant.file)).collect::<Vec<_>>();
    let is = |file: &str| name == Path::new(file);
    let is_root = name.ends_with("src/lib.rs");
    if mutants.is_empty() && !is(PROGRAM) && !is_root {
        return Ok(bytes);
    }
    let mut text = plant(&String::from_utf8(bytes)?, &mutants)?;
    if is_root {
        // A planted bug may leave something unused, or parentheses.
        text.insert_str(0, "#![allow(warnings)]\n");
    }
    if is(PROGRAM) {
        text = text.replace("name = \"simulate\"", "name = \"simulate-planted\"");
    }
    if is(TELLER) {
        text += &format!(
            "\n/// Tells which planted bug is at work.\npub mod planted {{\n    use std::sync::LazyLock;\n    \
             static ACTIVE: LazyLock<Option<u32>> =\n        \
             LazyLock::new(|| std::env::var(\"{variable}\").ok()?.parse().ok());\n    \
             /// Returns `true` if the bug of this number is at work.\n    \
             pub fn on(number: u32) -> bool {{\n        *ACTIVE == Some(number)\n    }}\n}}\n"
        );
    }
    Ok(text.into_bytes())
}

/// Puts the mutants into a file's text.
fn plant(text: &str, mutants: &[(usize, &Mutant)]) -> Result<String> {
    let mut places = Vec::new();
    for (number, mutant) in mutants {
        let Mutant { name, file, before, .. } = mutant;
        let Some(at) = text.find(before) else {
            bail!(
                "planted bug {name:?}: {file} does not contain {before:?} any more: change checks/planted/mutants.rs"
            );
        };
        if text[at + 1..].contains(before) {
            bail!("planted bug {name:?}: {file} contains {before:?} more than once: give more of the text");
        }
        places.push((at, before.len(), mutant.with_condition(*number)));
    }
    places.sort_unstable();
    let (mut out, mut end) = (String::new(), 0);
    for (at, len, after) in places {
        let Some(unchanged) = text.get(end..at) else {
            bail!("two planted bugs change the same text, at {:?}", &text[at..at + len]);
        };
        out += unchanged;
        out += &after;
        end = at + len;
    }
    Ok(out + &text[end..])
}

impl Mutant {
    /// Returns the text in place of `before`, which does the same unless the mutant is at work.
    fn with_condition(&self, number: usize) -> String {
        let Self { file, before, after, .. } = *self;
        let home = if file.starts_with("upcie-core") { "crate" } else { "upcie_core" };
        let on = format!("{home}::planted::on({number})");
        if after.contains(ON) {
            after.replace(ON, &on)
        } else if before.ends_with(';') {
            format!("if {on} {{ {after} }} else {{ {before} }}")
        } else {
            format!("(if {on} {{ {after} }} else {{ {before} }})")
        }
    }
}

/// Lists all files under `directory`; none if it does not exist.
fn list(directory: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    if !directory.exists() {
        return Ok(());
    }
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() { list(&path, files)? } else { files.push(path) }
    }
    Ok(())
}

/// Writes a file unless it has this content.
fn renew(path: &Path, content: &[u8]) -> Result<()> {
    if fs::read(path).is_ok_and(|old| old == content) {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::write(path, content).with_context(|| format!("writing {}", path.display()))
}

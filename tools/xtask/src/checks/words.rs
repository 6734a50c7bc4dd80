//! Checks that no function's doc begins with a word that starts a clause instead of a sentence.
//!
//! A doc says first what the function does: "Returns the version", not "What the version is". The check knows only the
//! first word, and only of functions; people check the rest.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::cargo::Workspace;

/// First words of docs that are no sentences.
const WORDS: [&str; 14] = [
    "as", "by", "from", "how", "in", "of", "that", "what", "when", "where", "whether", "which", "who", "why",
];
/// Keywords that may come before `fn`, besides `pub(…)`.
const QUALIFIERS: [&str; 6] = ["pub", "default", "const", "async", "unsafe", "extern"];

pub fn check(workspace: &Workspace) -> Result<()> {
    let mut files = Vec::new();
    sources(&workspace.root, &mut files)?;
    let (mut count, mut problems) = (0, Vec::new());
    for file in &files {
        let text = fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
        let shown = file.strip_prefix(&workspace.root).unwrap_or(file).display();
        for (line, doc) in function_docs(&text) {
            count += 1;
            if begins_with_clause(doc) {
                problems.push(format!("{shown}:{line}: {doc}"));
            }
        }
    }
    if count < 500 {
        bail!("found only {count} functions with docs: this check must be wrong");
    }
    if !problems.is_empty() {
        bail!(
            "the docs of these functions must begin with a verb in the third person, such as Returns:\n{}",
            problems.join("\n")
        );
    }
    Ok(())
}

/// Collects the Rust files below a directory, without build directories and hidden ones.
pub fn sources(directory: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(directory).with_context(|| format!("reading {}", directory.display()))? {
        let entry = entry?;
        let (name, path) = (entry.file_name(), entry.path());
        if entry.file_type()?.is_dir() {
            if name != "target" && !name.to_string_lossy().starts_with('.') {
                sources(&path, files)?;
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    Ok(())
}

/// Finds the first line of each function's doc, with its number.
fn function_docs(text: &str) -> Vec<(usize, &str)> {
    let (mut found, mut doc, mut attribute) = (Vec::new(), None, 0);
    for (line, number) in text.lines().map(str::trim).zip(1..) {
        if attribute > 0 || line.starts_with("#[") {
            // An attribute may span several lines.
            attribute += line.matches('[').count();
            attribute = attribute.saturating_sub(line.matches(']').count());
        } else if let Some(text) = line.strip_prefix("///") {
            doc.get_or_insert((number, text.trim()));
        } else {
            found.extend(doc.take().filter(|_| is_function(line)));
        }
    }
    found
}

/// Returns true if the line begins a function.
fn is_function(line: &str) -> bool {
    let mut words = line.split_whitespace();
    let is_qualifier = |word: &str| {
        QUALIFIERS.contains(&word) || word.starts_with("pub(") || word.ends_with(')') || word.starts_with('"')
    };
    words.find(|word| !is_qualifier(word)) == Some("fn")
}

/// Returns true if the first word of a doc starts a clause.
fn begins_with_clause(doc: &str) -> bool {
    let word = doc.split(|c: char| !c.is_alphanumeric()).find(|word| !word.is_empty());
    word.is_some_and(|word| WORDS.contains(&word.to_lowercase().as_str()))
}

#[cfg(test)]
mod tests {
    use super::{begins_with_clause, function_docs};

    /// Lists the bad docs in a text.
    fn problems(text: &str) -> Vec<(usize, &str)> {
        function_docs(text).into_iter().filter(|(_, doc)| begins_with_clause(doc)).collect()
    }

    #[test]
    fn a_clause_is_found_at_every_kind_of_function() {
        for head in [
            "fn f() {}",
            "    pub fn f(&self);",
            "pub(crate) const unsafe fn f();",
            "pub(in crate::a) async fn f();",
            "unsafe extern \"C\" fn f();",
            "#[inline]\nfn f() {}",
            "#[expect(\n    dead_code,\n    reason = \"a test\"\n)]\nfn f() {}",
        ] {
            let text = format!("/// What it is.\n///\n/// Returns it.\n{head}\n");
            assert_eq!(problems(&text), [(1, "What it is.")], "{head}");
        }
    }

    #[test]
    fn other_docs_and_sentences_pass() {
        for text in [
            "/// Returns what it is.\nfn f() {}",
            "/// What it is.\nstruct S;\nfn f() {}",
            "// What it is.\nfn f() {}",
            "/// What it is.\nconst F: fn() = f;",
            "/// Asks the device.\nfn f() {}",
        ] {
            assert!(problems(text).is_empty(), "{text}");
        }
    }
}

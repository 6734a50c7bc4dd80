//! Reads a source file: its modules, imports and paths.

use std::collections::BTreeSet;

use super::tokens::{Kind, Token, tokens, without_tests};

/// A path through modules: `["dma", "heap"]`.
pub type Path = Vec<String>;

/// A name that a `use` declaration brings into a module.
#[derive(Debug, Clone)]
pub struct Import {
    /// Module of the declaration.
    pub scope: Path,
    /// Path as written; for a glob the path of the module.
    pub path: Path,
    /// Name in this module; `None` for a glob and for `_`.
    pub name: Option<String>,
    pub glob: bool,
    /// True for `pub`, `pub(crate)`, ….
    pub exported: bool,
    pub line: usize,
}

/// A path of two or more segments outside of `use` declarations.
#[derive(Debug)]
pub struct QualifiedPath {
    pub scope: Path,
    pub path: Path,
    pub line: usize,
}

/// Contents of a file, without tests.
#[derive(Debug, Default)]
pub struct Source {
    /// Modules that are declared here and have their own files.
    pub children: Vec<Path>,
    /// Modules with bodies in this file, without the file's own module.
    pub inline: Vec<Path>,
    /// Module and name of each item.
    pub items: BTreeSet<(Path, String)>,
    pub imports: Vec<Import>,
    pub mentions: Vec<QualifiedPath>,
    /// Words outside of `use` declarations.
    pub words: BTreeSet<String>,
}

impl Source {
    /// Reads the text of a module's file.
    pub fn read(module: Path, text: &str) -> Self {
        let tokens = without_tests(tokens(text));
        let mut parser =
            Parser { tokens: &tokens, at: 0, scopes: vec![(module, 0)], depth: 0, found: Self::default() };
        while parser.at < tokens.len() {
            parser.step();
        }
        parser.found
    }
}

struct Parser<'a> {
    tokens: &'a [Token],
    at: usize,
    /// Modules around the current token, with the brace depth of their bodies.
    scopes: Vec<(Path, usize)>,
    depth: usize,
    found: Source,
}

impl Parser<'_> {
    fn peek(&self, ahead: usize) -> Option<&Kind> {
        self.tokens.get(self.at + ahead).map(|token| &token.kind)
    }

    fn word(&self, ahead: usize) -> Option<String> {
        if let Some(Kind::Word(word)) = self.peek(ahead) { Some(word.clone()) } else { None }
    }

    fn scope(&self) -> Path {
        self.scopes.last().map(|(scope, _)| scope.clone()).unwrap_or_default()
    }

    fn step(&mut self) {
        let Some(Kind::Word(word)) = self.peek(0).cloned() else {
            match self.peek(0) {
                Some(Kind::Mark('{')) => self.depth += 1,
                Some(Kind::Mark('}')) => {
                    self.depth = self.depth.saturating_sub(1);
                    if self.scopes.len() > 1
                        && self.scopes.last().is_some_and(|(_, depth)| *depth > self.depth)
                    {
                        self.scopes.pop();
                    }
                }
                _ => {}
            }
            self.at += 1;
            return;
        };
        match (word.as_str(), self.word(1)) {
            ("use", _) => self.declaration(),
            ("mod", Some(name)) => self.module(name),
            ("fn" | "struct" | "enum" | "union" | "trait" | "type" | "const" | "static", Some(name)) => {
                self.found.items.insert((self.scope(), name));
                self.at += 1;
            }
            ("macro_rules", None) => {
                if let Some(name) = self.word(2) {
                    self.found.items.insert((self.scope(), name));
                }
                self.at += 2;
            }
            _ => self.path(),
        }
    }

    fn module(&mut self, name: String) {
        let mut path = self.scope();
        path.push(name);
        match self.peek(2) {
            Some(Kind::Mark(';')) => self.found.children.push(path),
            Some(Kind::Mark('{')) => {
                self.depth += 1;
                self.found.inline.push(path.clone());
                self.scopes.push((path, self.depth));
            }
            _ => {}
        }
        self.at += 3;
    }

    /// Reads a word, or a path that begins with it.
    fn path(&mut self) {
        let line = self.tokens[self.at].line;
        let mut path = Path::new();
        while let Some(word) = self.word(0) {
            self.found.words.insert(word.clone());
            path.push(word);
            self.at += 1;
            match (self.peek(0), self.peek(1)) {
                (Some(Kind::Path), Some(Kind::Word(_))) => self.at += 1,
                _ => break,
            }
        }
        if path.len() > 1 {
            self.found.mentions.push(QualifiedPath { scope: self.scope(), path, line });
        }
    }

    fn declaration(&mut self) {
        let before = self.at.checked_sub(1).map(|at| &self.tokens[at]);
        // `pub use` and `pub(crate) use`: no other parenthesis can end before a declaration.
        let exported = before.is_some_and(|token| token.is_word("pub") || token.is_mark(')'));
        self.at += 1;
        self.tree(Path::new(), exported);
        while self.peek(0).is_some_and(|kind| *kind != Kind::Mark(';')) {
            self.at += 1;
        }
        self.at += 1;
    }

    /// Reads one tree of a declaration, after the segments of `prefix`; stops before a comma, a closing brace
    /// or the semicolon.
    fn tree(&mut self, mut prefix: Path, exported: bool) {
        while let Some(token) = self.tokens.get(self.at) {
            let line = token.line;
            let import = |path: Path, name, glob| (path, name, glob, line);
            let (path, name, glob, line) = match token.kind.clone() {
                Kind::Path => {
                    self.at += 1;
                    continue;
                }
                Kind::Mark('{') => {
                    self.at += 1;
                    while self.peek(0).is_some_and(|kind| !matches!(kind, Kind::Mark('}' | ';'))) {
                        self.tree(prefix.clone(), exported);
                        if self.peek(0) == Some(&Kind::Mark(',')) {
                            self.at += 1;
                        }
                    }
                    self.at += 1;
                    return;
                }
                Kind::Mark('*') => {
                    self.at += 1;
                    import(prefix.clone(), None, true)
                }
                Kind::Word(word) => {
                    self.at += 1;
                    // `self` in braces means the module before them.
                    if word != "self" || prefix.is_empty() {
                        prefix.push(word);
                    }
                    if self.peek(0) == Some(&Kind::Path) {
                        continue;
                    }
                    let mut name = prefix.last().cloned();
                    if self.word(0).as_deref() == Some("as") {
                        name = self.word(1).filter(|name| name != "_");
                        self.at += 2;
                    }
                    import(prefix.clone(), name, false)
                }
                Kind::Mark(_) => return,
            };
            self.found.imports.push(Import { scope: self.scope(), path, name, glob, exported, line });
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> Path {
        text.split("::").filter(|segment| !segment.is_empty()).map(str::to_owned).collect()
    }

    #[test]
    fn every_form_of_use_is_read() {
        let text = "use crate::a::{self, b::C as D, e::*};\npub(crate) use super::f;\nuse g::H as _;";
        let source = Source::read(path("m"), text);
        let found: Vec<_> = source
            .imports
            .iter()
            .map(|import| {
                (import.path.join("::"), import.name.clone(), import.glob, import.exported, import.line)
            })
            .collect();
        let name = |text: &str| Some(text.to_owned());
        assert_eq!(
            found,
            [
                ("crate::a".into(), name("a"), false, false, 1),
                ("crate::a::b::C".into(), name("D"), false, false, 1),
                ("crate::a::e".into(), None, true, false, 1),
                ("super::f".into(), name("f"), false, true, 2),
                ("g::H".into(), None, false, false, 3),
            ]
        );
    }

    #[test]
    fn modules_and_paths_know_their_scope() {
        let text = "mod a;\nmod b {\n fn f() { super::g::h(1) }\n}\nstruct S(crate::T);\nmacro_rules! m { () => { $crate::X } }";
        let source = Source::read(path("m"), text);
        assert_eq!((source.children, source.inline), (vec![path("m::a")], vec![path("m::b")]));
        let mentions: Vec<_> = source
            .mentions
            .iter()
            .map(|mention| (mention.scope.join("::"), mention.path.join("::")))
            .collect();
        let expected = [("m::b", "super::g::h"), ("m", "crate::T"), ("m", "crate::X")];
        assert_eq!(mentions, expected.map(|(scope, path)| (scope.to_owned(), path.to_owned())));
        let items = [("m", "S"), ("m", "m"), ("m::b", "f")];
        assert_eq!(source.items, items.map(|(scope, name)| (path(scope), name.to_owned())).into());
    }
}

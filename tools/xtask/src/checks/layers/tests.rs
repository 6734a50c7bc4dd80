use std::fs;
use std::path::PathBuf;

use super::*;

/// A crate in its own directory, removed when dropped.
struct Crate(PathBuf);

impl Crate {
    fn new(name: &str, files: &[(&str, &str)]) -> Self {
        let root = std::env::temp_dir().join(format!("upcie-layers-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&root);
        for (file, text) in files {
            let path = root.join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        Self(root)
    }

    fn problems(&self, list: &str) -> Vec<String> {
        let list = list::read(&format!("```layers x\n{list}\n```"), "x").unwrap();
        compare(&Graph::read(&self.0).unwrap(), &list, &self.0)
    }
}

impl Drop for Crate {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn imports_on_the_list_pass() {
    let files = [
        ("lib.rs", "pub mod low;\nmod high;\n#[cfg(test)] mod tests;\npub use low::Thing;"),
        ("low/mod.rs", "mod thing;\npub use thing::Thing;"),
        ("low/thing.rs", "pub struct Thing;\n#[cfg(test)] mod tests { use crate::high::f; }"),
        ("high.rs", "use crate::Thing;\n/// Not [`crate::low`].\npub fn f() -> Thing { Thing }"),
    ];
    assert_eq!(Crate::new("good", &files).problems("high → low\nlow"), [""; 0]);
}

#[test]
fn an_import_off_the_list_is_named_with_its_line() {
    let files = [
        ("lib.rs", "mod low;\nmod high;"),
        ("low.rs", "pub const N: u8 = 1;\n\nfn f() { crate::high::f(); }"),
        ("high.rs", "use crate::low::N;\npub fn f() -> u8 { N }"),
    ];
    let problems = Crate::new("up", &files).problems("high → low\nlow");
    let expected = [
        "low.rs:3: low imports high, which is not on the list in ARCHITECTURE.md, and high imports low (high.rs:1)",
        "a circle: high.rs:1 imports low.rs; low.rs:3 imports high.rs",
    ];
    assert_eq!(problems, expected);
}

#[test]
fn a_listed_import_without_use_fails() {
    let files = [("lib.rs", "mod low;\nmod high;"), ("low.rs", ""), ("high.rs", "")];
    let problems = Crate::new("unused", &files).problems("gone\nhigh → low\nlow");
    let expected = [
        "ARCHITECTURE.md:2: there is no module gone",
        "ARCHITECTURE.md:3: high imports nothing of low: take it off the list",
    ];
    assert_eq!(problems, expected);
    assert_eq!(
        Crate::new("unlisted", &files).problems("high"),
        ["ARCHITECTURE.md: the module low has no line in its list"]
    );
}

#[test]
fn circles_of_files_are_found_through_re_exports() {
    let files = [
        ("lib.rs", "mod a;"),
        ("a/mod.rs", "mod b;\nmod c;\npub use b::B;\npub use self::c::*;"),
        ("a/b.rs", "use super::C;\npub struct B(C);"),
        ("a/c.rs", "pub struct C;\nuse super::b;\nfn f() -> b::B { todo!() }"),
    ];
    let circle = Crate::new("circle", &files);
    assert_eq!(circle.problems("a"), ["a circle: a/b.rs:1 imports a/c.rs; a/c.rs:2 imports a/b.rs"]);
    assert_eq!(circle.problems("a\ncircles to go: a"), [""; 0]);
    let straight = Crate::new("straight", &files[..1]);
    fs::write(straight.0.join("a.rs"), "").unwrap();
    let problems = straight.problems("a\ncircles to go: a");
    assert_eq!(problems, ["ARCHITECTURE.md:3: no files of a import each other: take it off the list"]);
}

#[test]
fn module_roots_must_be_mod_rs() {
    let files = [("lib.rs", "mod a;"), ("a.rs", "mod b;"), ("a/b.rs", "")];
    let problems = Crate::new("roots", &files).problems("a");
    assert_eq!(problems, ["a.rs: a module with files below it stands in mod.rs"]);
}

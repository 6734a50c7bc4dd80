//! The binary interface: the header, the library's functions and structures, the checked-in description, and symbol
//! versions agree.
//!
//! `abi.txt` has the constants, all functions by the classes of their arguments, the types of callbacks, and all structures by
//! offsets and types. A change there is a change of what compiled programs rely on: lines may be added, and none may change while
//! `UPCIE_ABI` stays.

mod common;

use common::{built, source, succeed};
use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};
use upcie_tests::left_out;

fn read(path: &str) -> String {
    fs::read_to_string(source(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Splits at commas outside of parentheses and angle brackets.
fn arguments(list: &str) -> Vec<String> {
    let (mut depth, mut all) = (0, vec![String::new()]);
    for letter in list.chars() {
        match letter {
            '(' | '<' | '[' => depth += 1,
            ')' | '>' | ']' => depth -= 1,
            ',' if depth == 0 => {
                all.push(String::new());
                continue;
            }
            _ => {}
        }
        if let Some(last) = all.last_mut() {
            last.push(letter);
        }
    }
    all.into_iter().map(|piece| piece.trim().to_owned()).filter(|piece| !piece.is_empty()).collect()
}

/// Returns the class of an argument of C's: how it is passed.
fn c_class(text: &str) -> &'static str {
    let first = text.split(|c: char| !c.is_alphanumeric() && c != '_').find(|word| *word != "const");
    match first {
        _ if text.contains('*') || text.starts_with("upcie_done") => "pointer",
        Some("void") => "nothing",
        Some("int") => "int",
        Some("uint32_t") => "u32",
        Some("size_t") => "size",
        _ => panic!("unknown type in {text:?}"),
    }
}

fn rust_class(text: &str) -> &'static str {
    let text = text.rsplit(": ").next().unwrap_or(text).trim();
    match text {
        "c_int" => "int",
        "u32" => "u32",
        "usize" => "size",
        _ if text.starts_with('*') || text.starts_with("Option<") => "pointer",
        _ => panic!("unknown type {text:?}"),
    }
}

/// Returns the header without comments and preprocessor lines.
fn header() -> String {
    let text = read("include/upcie.h");
    let mut rest = text.as_str();
    let mut plain = String::new();
    while let Some((before, after)) = rest.split_once("/*") {
        plain += before;
        rest = after.split_once("*/").expect("a comment ends").1;
    }
    plain += rest;
    plain.lines().filter(|line| !line.starts_with('#')).collect::<Vec<_>>().join(" ")
}

/// Returns the functions of the header: result and arguments, by name.
fn of_header() -> BTreeMap<String, String> {
    let text = header();
    let mut found = BTreeMap::new();
    for statement in text.split(';') {
        let statement = statement.rsplit('}').next().unwrap_or_default();
        let statement = statement.rsplit('{').next().unwrap_or_default().trim();
        let Some((head, list)) = statement.split_once('(') else { continue };
        if statement.starts_with("typedef") {
            continue;
        }
        let list = list.trim_end().strip_suffix(')').unwrap_or(list);
        let name = head.split(|c: char| !c.is_alphanumeric() && c != '_').next_back().unwrap_or_default();
        let result = c_class(head);
        let classes: Vec<_> =
            arguments(list).iter().map(|piece| c_class(piece)).filter(|c| *c != "nothing").collect();
        found.insert(name.to_owned(), format!("{result} {name}({})", classes.join(", ")));
    }
    found
}

/// Returns the constants of the header, with their values.
fn constants() -> Vec<(String, String)> {
    let header = read("include/upcie.h");
    let defined = header.lines().filter_map(|line| line.strip_prefix("#define "));
    // One without a value is the guard against a second inclusion.
    let found = defined.filter_map(|line| line.split_once(char::is_whitespace));
    found.map(|(name, value)| (name.to_owned(), value.trim().trim_end_matches('u').to_owned())).collect()
}

/// Returns the declarations of the header with a pointer to a function.
fn callbacks() -> Vec<String> {
    let text = header();
    let found = text.split(';').filter(|statement| statement.contains("(*"));
    found.map(|statement| statement.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

/// Returns the types of the header's fields, by their structures and names.
fn types() -> BTreeMap<(String, String), String> {
    let text = header();
    let mut found = BTreeMap::new();
    for part in text.split("struct ").skip(1) {
        let Some((name, rest)) = part.split_once(" {") else { continue };
        let fields = rest.split_once('}').expect("an end").0;
        for field in fields.split(';').map(str::trim).filter(|field| !field.is_empty()) {
            let (declared, array) = field.split_at(field.find('[').unwrap_or(field.len()));
            let end = declared.rfind(|c: char| c.is_whitespace() || c == '*').expect("a type") + 1;
            let (kind, field) = declared.split_at(end);
            found.insert((name.to_owned(), field.to_owned()), format!("{}{array}", kind.trim()));
        }
    }
    found
}

/// Returns the functions of the sources, in the same form.
fn of_sources() -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for file in ["mod", "memory", "controllers", "queues", "submissions"] {
        let text = read(&format!("src/calls/{file}.rs"));
        for function in text.split("extern \"C\" fn upcie_").skip(1) {
            let (name, rest) = function.split_once('(').expect("arguments");
            let mut depth = 1;
            let end = rest.find(|letter| {
                depth += i32::from(letter == '(') - i32::from(letter == ')');
                depth == 0
            });
            let (list, rest) = rest.split_at(end.expect("an end"));
            let rest = rest.split_once("-> ").expect("a result").1;
            let result = rest.split_once(" {").expect("a body").0;
            let list = list.replace("->", "").split_whitespace().collect::<Vec<_>>().join(" ");
            let classes: Vec<_> = arguments(&list).iter().map(|piece| rust_class(piece)).collect();
            let name = format!("upcie_{name}");
            found.insert(name.clone(), format!("{} {name}({})", rust_class(result), classes.join(", ")));
        }
    }
    found
}

/// A structure's name, its size, and the names and offsets of its fields.
type Layout = (String, String, Vec<(String, String)>);

/// Returns the structures of the sources: sizes and offsets, by C's names.
fn structures() -> Vec<Layout> {
    let text = read("src/abi.rs");
    let mut all = Vec::new();
    for part in text.split("structure! {\n").skip(1) {
        let part = part.split_once("\n}").expect("an end").0;
        let part: String =
            part.lines().filter(|line| !line.trim().starts_with("///")).collect::<Vec<_>>().join(" ");
        let (head, fields) = part.split_once('{').expect("fields");
        let (name, bytes) = head.split_once(',').expect("a size");
        let mut c_name = String::from("upcie");
        for letter in name.trim().chars() {
            if letter.is_uppercase() {
                c_name.push('_');
            }
            c_name.extend(letter.to_lowercase());
        }
        let fields = fields.rsplit_once('}').expect("an end").0;
        let offsets = arguments(fields).into_iter().map(|field| {
            let (name, rest) = field.split_once(':').expect("a type");
            let offset = rest.rsplit('=').next().expect("an offset");
            (name.trim().to_owned(), offset.trim().to_owned())
        });
        all.push((c_name, bytes.trim().to_owned(), offsets.collect()));
    }
    assert!(all.len() >= 5, "{all:?}");
    all
}

#[test]
fn the_header_has_the_librarys_functions() {
    let (declared, defined) = (of_header(), of_sources());
    assert!(declared.len() >= 25, "{declared:?}");
    assert_eq!(declared, defined);
    let listed = succeed(Command::new("nm").args(["-D", "--defined-only"]).arg(built().join("libupcie.so")));
    let exported: BTreeSet<_> =
        listed.lines().filter_map(|line| line.split_whitespace().nth(2)).map(str::to_owned).collect();
    assert_eq!(exported, declared.into_keys().collect());
}

#[test]
fn the_description_of_the_abi_is_true() {
    let mut text = String::new();
    for (name, value) in constants() {
        text += &format!("{name} = {value}\n");
    }
    for line in of_header().values().chain(&callbacks()) {
        text += &format!("{line}\n");
    }
    let types = types();
    for (name, bytes, fields) in structures() {
        text += &format!("struct {name}: {bytes} bytes\n");
        for (field, offset) in fields {
            let kind = &types[&(name.clone(), field.clone())];
            text += &format!("    {offset} {field}: {kind}\n");
        }
    }
    let path = source("abi.txt");
    if env::var_os("UPCIE_WRITE_ABI").is_some() {
        fs::write(&path, &text).expect("writing abi.txt");
    }
    let known = read("abi.txt");
    assert_eq!(known, text, "the ABI has changed: is that compatible? UPCIE_WRITE_ABI=1 writes abi.txt anew");
}

/// Compiles a source that must compile, in a language, without linking.
fn compiles(compiler: &str, standard: &str, name: &str, text: &str) {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::write(&path, text).expect("writing a source");
    let mut command = Command::new(compiler);
    command.args([standard, "-Wall", "-Wextra", "-Werror", "-pedantic", "-fsyntax-only"]);
    succeed(command.arg("-I").arg(source("include")).arg(&path));
}

#[test]
fn structures_are_the_same_in_c() {
    let mut text = String::from("#include <upcie.h>\n");
    let mut number = 0;
    let mut check = |condition: String| {
        number += 1;
        text += &format!("typedef char check_{number}[({condition}) ? 1 : -1];\n");
    };
    for (name, bytes, fields) in structures() {
        check(format!("sizeof(struct {name}) == {bytes}"));
        for (field, offset) in fields {
            check(format!("offsetof(struct {name}, {field}) == {offset}"));
        }
    }
    for (name, value) in constants() {
        check(format!("{name} == {value}"));
    }
    compiles("cc", "-std=c99", "layout.c", &text);
    compiles("c++", "-std=c++11", "layout.cpp", &text);
}

#[test]
fn the_installed_library_has_versions() {
    let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("installed-{}", std::process::id()));
    let mut make = Command::new("make");
    make.arg("--silent").arg("-C").arg(source("")).arg("install").arg(format!("DESTDIR={}", out.display()));
    make.args(["PREFIX=/opt/upcie", "LIBDIR=/opt/upcie/lib"]).arg(format!("BUILT={}", built().display()));
    // Not cargo's own, if this test runs beneath one.
    succeed(make.env_remove("MAKEFLAGS"));
    let libraries = out.join("opt/upcie/lib");
    let library = libraries.join("libupcie.so.0");
    let listed = succeed(Command::new("nm").args(["-D", "--defined-only"]).arg(&library));
    for name in of_header().keys() {
        assert!(listed.contains(&format!(" {name}@@UPCIE_0\n")), "{name}: {listed}");
    }
    let exported = listed.lines().filter(|line| line.contains(" T ")).count();
    assert_eq!(exported, of_header().len(), "{listed}");
    let dynamic = succeed(Command::new("readelf").arg("-d").arg(&library));
    assert!(dynamic.contains("[libupcie.so.0]"), "{dynamic}");
    programs_are_built_by_pkg_config(&out, &libraries);
    let _ = fs::remove_dir_all(&out);
}

/// Builds a program with each of the installed libraries as its author would, and runs it.
fn programs_are_built_by_pkg_config(root: &Path, libraries: &Path) {
    if Command::new("pkg-config").arg("--version").output().is_err() {
        return left_out("pkg-config is not installed");
    }
    let asked = |arguments: &[&str]| {
        let mut command = Command::new("pkg-config");
        command.env("PKG_CONFIG_LIBDIR", libraries.join("pkgconfig")).env("PKG_CONFIG_SYSROOT_DIR", root);
        succeed(command.args(arguments).arg("upcie"))
    };
    assert_eq!(asked(&["--modversion"]).trim(), env!("CARGO_PKG_VERSION"));
    let shared = asked(&["--cflags", "--libs"]);
    // A linker prefers the shared library, unless it is told the other one's file.
    let with_static = asked(&["--static", "--cflags", "--libs"]).replace("-lupcie", "-l:libupcie.a");
    for (name, flags) in [("shared", shared), ("static", with_static)] {
        let program = root.join(name);
        let mut cc = Command::new("cc");
        cc.arg("-std=c99").arg(source("examples/hello.c")).args(flags.split_whitespace());
        succeed(cc.arg("-o").arg(&program));
        let mut hello = Command::new("timeout");
        hello.args(["120"]).arg(&program);
        if name == "shared" {
            hello.env("LD_LIBRARY_PATH", libraries);
        }
        assert!(succeed(&mut hello).contains("hello, controller"), "{name}");
    }
}

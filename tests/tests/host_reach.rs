//! docs/reach.md says what can be used from where: its names exist, and the embedded controller serves what it says. The tests that
//! docs/registers.md names exist, too.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};
use upcie_nvme::{
    Controller, FeatureQuery, IdentifyQuery, LogQuery,
    spec::{
        AdminOpcode, Cns, CommandsSupportedLog, Csi, FeatureId, FeaturesSupportedLog, KeyValueOpcode,
        NvmOpcode, SupportedLogPages,
    },
};

/// Controllers that together have all that the embedded controller can have.
const CONTROLLERS: [&str; 5] = [
    "emu:size=1M,nn=4,boot-partitions=128K,hmb=4M,dbbuf=true,ana=optimized",
    "emu:size=1M,zoned=true,zone-size=64K",
    "emu:size=1M,kv=true",
    "emu:size=1M,fdp=true",
    "emu:size=1M,vfs=1",
];

/// Opens one of these for one test: a process has one controller with `vfs=` of each serial number.
fn open(address: &str, test: &str) -> Controller {
    Controller::open(format!("{address},serial={test}")).unwrap()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Returns the rows of the page's table whose heading begins with these columns, each as its columns.
fn table(heading: &str) -> Vec<Vec<String>> {
    let page = fs::read_to_string(root().join("docs/reach.md")).unwrap();
    let lines = page.lines().skip_while(|line| !line.starts_with(heading)).skip(2);
    let rows = lines.take_while(|line| line.starts_with('|'));
    let columns = |row: &str| row.trim_matches('|').split('|').map(|part| part.trim().to_owned()).collect();
    let rows: Vec<Vec<String>> = rows.map(columns).collect();
    assert!(!rows.is_empty(), "{heading}");
    rows
}

/// Returns the number of `0Ah`.
fn number(text: &str) -> u8 {
    u8::from_str_radix(text.strip_suffix('h').expect(text), 16).expect(text)
}

/// Returns the parts of a text that stand in backquotes.
fn quoted(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

/// Reads all files of a directory with this end.
fn sources(directory: &str, end: &str) -> String {
    let mut all = String::new();
    let mut left = vec![root().join(directory)];
    while let Some(path) = left.pop() {
        for entry in fs::read_dir(&path).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                left.push(path);
            } else if path.to_string_lossy().ends_with(end) {
                all.push_str(&fs::read_to_string(path).unwrap());
            }
        }
    }
    all
}

/// Collects the commands that the controllers have: admin commands, and I/O commands of namespaces with blocks and with keys.
fn served() -> [BTreeSet<u8>; 3] {
    let mut all = [const { BTreeSet::new() }; 3];
    for address in CONTROLLERS {
        let controller = open(address, "commands");
        for csi in [Csi::NVM, Csi::ZONED, Csi::KEY_VALUE] {
            let has_set = csi == Csi::NVM
                || address.contains("zoned") && csi == Csi::ZONED
                || address.contains("kv") && csi == Csi::KEY_VALUE;
            let query = LogQuery { csi, ..Default::default() };
            let Some(log) = has_set.then(|| controller.log_with::<CommandsSupportedLog>(&query).unwrap())
            else {
                continue;
            };
            let kind = if csi == Csi::KEY_VALUE { 2 } else { 1 };
            for (opcode, (admin, io)) in (0..=255).zip(log.admin_commands.iter().zip(&log.io_commands)) {
                if admin.supported() {
                    all[0].insert(opcode);
                }
                if io.supported() {
                    all[kind].insert(opcode);
                }
            }
        }
    }
    all
}

#[test]
fn the_tables_of_commands_are_complete_and_true_of_emu() {
    let [admin, blocks, keys] = served();
    let rows = table("| opcode | command |");
    let named = (0..=255).filter(|&opcode| AdminOpcode(opcode).name().is_some());
    let listed: Vec<u8> = rows.iter().map(|row| number(&row[0])).collect();
    assert_eq!(listed, named.collect::<Vec<_>>(), "every admin command that has a name, in order");
    for row in &rows {
        let opcode = number(&row[0]);
        assert_eq!(AdminOpcode(opcode).name(), Some(&*row[1]));
        assert_eq!(row[3] == "yes", admin.contains(&opcode), "{row:?}");
    }
    let rows = table("| set | opcode | command |");
    let (with_keys, with_blocks): (Vec<_>, Vec<_>) = rows.iter().partition(|row| row[0] == "key value");
    let listed: Vec<u8> = with_blocks.iter().map(|row| number(&row[1])).collect();
    let named = (0..=255).filter(|&opcode| NvmOpcode(opcode).name().is_some());
    assert_eq!(listed, named.collect::<Vec<_>>(), "every I/O command that has a name, in order");
    let listed: Vec<u8> = with_keys.iter().map(|row| number(&row[1])).collect();
    let named = (0..=255).filter(|&opcode| KeyValueOpcode(opcode).name().is_some());
    assert_eq!(listed, named.collect::<Vec<_>>(), "every command of keys, in order");
    for row in with_blocks {
        let opcode = number(&row[1]);
        assert_eq!(NvmOpcode(opcode).name(), Some(&*row[2]));
        assert_eq!(row[4] == "yes", blocks.contains(&opcode), "{row:?}");
    }
    for row in with_keys {
        let opcode = number(&row[1]);
        assert_eq!(KeyValueOpcode(opcode).name(), Some(&*row[2]));
        assert_eq!(row[4] == "yes", keys.contains(&opcode), "{row:?}");
    }
}

#[test]
fn the_numbered_structures_are_those_that_emu_serves() {
    let (mut logs, mut structures, mut features) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    // A file has a volatile write cache.
    let path = std::env::temp_dir().join(format!("upcie-reach-{}.img", std::process::id()));
    let cached = format!("emu:size=1M,file={}", path.display());
    for address in CONTROLLERS.into_iter().chain([&*cached]) {
        let controller = open(address, "structures");
        let supported: SupportedLogPages = controller.log().unwrap();
        logs.extend(
            (0..=255_u8).zip(&supported.log_pages).filter(|(_, page)| page.supported()).map(|(id, _)| id),
        );
        for cns in 0..=0x20 {
            let served = [Csi::NVM, Csi::ZONED, Csi::KEY_VALUE].into_iter().any(|csi| {
                let query = IdentifyQuery { nsid: 1, ..Default::default() };
                let list = IdentifyQuery { nsid: 0, ..Default::default() };
                [query, list].iter().any(|query| controller.identify_bytes(Cns(cns), csi, query).is_ok())
            });
            if served {
                structures.insert(cns);
            }
        }
        let listed: FeaturesSupportedLog = controller.log().unwrap();
        for (id, effects) in (0..=255).zip(&listed.features) {
            let query = FeatureQuery { nsid: 1, ..Default::default() };
            let of_one = FeatureQuery::default();
            // Memory that the controller borrows is not in the log.
            let answers = || {
                [query, of_one]
                    .iter()
                    .any(|query| controller.feature_bytes(FeatureId::HOST_MEMORY_BUFFER, 4096, query).is_ok())
            };
            if effects.supported() || id == FeatureId::HOST_MEMORY_BUFFER.0 && answers() {
                features.insert(id);
            }
        }
    }
    fs::remove_file(&path).unwrap();
    let rows = table("| of | served by emu |");
    for (row, found) in rows.iter().zip([logs, structures, features]) {
        let told: BTreeSet<u8> = row[1].split(", ").map(number).collect();
        assert_eq!(told, found, "{}", row[0]);
    }
    assert_eq!(rows.len(), 3);
}

#[test]
fn every_name_on_the_page_exists() {
    let rust = sources("upcie-nvme/src", ".rs") + &sources("upcie-core/src/dma", ".rs");
    let header = fs::read_to_string(root().join("upcie-c/include/upcie.h")).unwrap();
    let stubs = fs::read_to_string(root().join("python/python/upcie/_native.pyi")).unwrap();
    let verbs = sources("tools/src/bin/upcie", ".rs");
    let has_rust = |name: &str| {
        let mut parts = name.rsplit("::");
        let (last, first) = (parts.next().unwrap(), parts.next());
        let is_item = |name: &str| {
            ["struct ", "enum ", "fn ", "pub use "].iter().any(|kind| {
                rust.match_indices(&format!("{kind}{name}")).any(|(at, text)| {
                    !rust[at + text.len()..].starts_with(|c: char| c.is_alphanumeric() || c == '_')
                })
            }) || ["    ", ""].iter().any(|space| rust.contains(&format!("\n{space}{name}(")))
        };
        is_item(last) && first.is_none_or(is_item)
    };
    let check = |name: &str, is_there: bool| assert!(is_there, "`{name}` does not exist");
    let mut count = 0;
    for (heading, [of_rust, tool, c, python]) in [
        ("| opcode | command |", [2, 4, 5, 6]),
        ("| set | opcode | command |", [3, 5, 6, 7]),
        ("| what | Rust |", [1, 2, 3, 4]),
        ("| memory | Rust |", [1, 3, 4, 5]),
    ] {
        for row in table(heading) {
            quoted(&row[of_rust]).into_iter().for_each(|name| check(name, has_rust(name)));
            for verb in quoted(&row[tool]) {
                // A variant of the command line's enumeration.
                let words = verb.split('-').map(|word| word[..1].to_uppercase() + &word[1..]);
                check(verb, verbs.contains(&format!("\n    {}(", words.collect::<String>())));
            }
            for name in quoted(&row[c]) {
                check(name, header.contains(&format!("{name}(")) || header.contains(&format!(" *{name},")));
            }
            for name in quoted(&row[python]) {
                let is_there = [format!("def {name}("), format!("class {name}:"), format!(" {name}: ")];
                check(name, is_there.iter().any(|text| stubs.contains(text)));
            }
            count += 1;
        }
    }
    for row in table("| type | events with a name |") {
        quoted(&row[1]).into_iter().for_each(|name| check(name, has_rust(name)));
        count += 1;
    }
    assert!(count > 60, "{count}");
}

/// docs/registers.md names in its last column the tests that show what it says.
#[test]
fn the_tests_of_the_registers_page_exist() {
    let page = fs::read_to_string(root().join("docs/registers.md")).unwrap();
    let all = ["upcie-core/src", "upcie-nvme/src", "tests/tests"].map(|directory| sources(directory, ".rs"));
    let exists = |name: &&str| all.iter().any(|files| files.contains(&format!("fn {name}(")));
    let rows = page.lines().filter(|line| line.starts_with('|'));
    let tests: Vec<_> =
        rows.filter_map(|row| row.trim_end_matches('|').rsplit('|').next()).flat_map(quoted).collect();
    assert!(tests.len() > 50, "{tests:?}");
    let missing: Vec<_> = tests.into_iter().filter(|name| !exists(name)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

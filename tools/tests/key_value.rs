//! `upcie kv`, and the other verbs on a key value namespace.

mod program;

use program::{Dir, Served, complains, fails, feed, run_upcie as run, succeeds};
use serde_json::Value;
use std::fs;

/// A plain namespace of 1 MiB, then one with keys.
const OPTIONS: &str = "size=1M,namespaces=2,kv=false+true,kv-key=8,kv-value=4K,mdts=16K";

fn text(arguments: &str) -> String {
    String::from_utf8(succeeds(run(arguments))).unwrap()
}

fn json(arguments: &str) -> Value {
    serde_json::from_slice(&succeeds(run(&format!("{arguments} --json")))).unwrap()
}

#[test]
fn values_are_stored_listed_retrieved_and_deleted() {
    let dir = Dir::made("keys");
    let served = Served::new(&dir, OPTIONS);
    let emu = &served.1;
    let file = dir.path("value");
    let bytes: Vec<u8> = (0..3000).map(|at| (at * 7) as u8).collect();
    fs::write(&file, &bytes).unwrap();
    // Stores and deletes change data: the one rule for all verbs.
    let error = fails(1, run(&format!("kv store {emu} file {file}")));
    assert!(
        error.contains("kv store writes to namespace 2 of 1 MiB") && error.contains("--destructive"),
        "{error}"
    );
    let stored = json(&format!("kv store {emu} file {file} --destructive"));
    assert_eq!((&stored["namespace"], &stored["bytes"]), (&2.into(), &3000.into()));
    succeeds(feed(&format!("kv store {emu} 00ff --hex --destructive"), b"hello\n"));
    succeeds(feed(&format!("kv store {emu} empty - --destructive --must-not-exist"), b""));

    let listed = json(&format!("kv list {emu}"));
    let names: Vec<_> = listed["keys"].as_array().unwrap().iter().map(|key| &key["key"]).collect();
    assert_eq!(names, [&Value::Null, &"empty".into(), &"file".into()]);
    assert_eq!(
        (&listed["count"], &listed["keys"][0]["hex"], &listed["size"], &listed["used"]),
        (&3.into(), &"00ff".into(), &(1 << 20).into(), &(3000 + 6 + 3 * 64).into())
    );
    let shown = text(&format!("kv list {emu} --from empty --count 1"));
    assert!(shown.contains("keys: 1\n  \"empty\"") && !shown.contains("0x00ff"), "{shown}");
    assert!(text(&format!("kv list {emu}")).contains("\n  0x00ff\n"));

    assert_eq!(text(&format!("kv retrieve {emu} 0x00ff --hex")), "hello\n");
    let back = dir.path("back");
    fs::write(&back, "before").unwrap();
    text(&format!("kv retrieve {emu} file {back}"));
    assert!(fs::read(&back).unwrap() == bytes);
    text(&format!("kv retrieve {emu} empty {back}"));
    assert_eq!(fs::read(&back).unwrap(), b"", "a value of no bytes");
    let described = json(&format!("kv retrieve {emu} 00ff --hex"));
    assert_eq!((&described["bytes"], &described["value"]), (&6.into(), &"68656c6c6f0a".into()));

    assert!(text(&format!("kv exist {emu} file")).contains("has the key \"file\""));
    let error = fails(1, run(&format!("kv delete {emu} file")));
    assert!(error.contains("kv delete deletes a key of namespace 2"), "{error}");
    assert!(text(&format!("kv delete {emu} file --destructive")).contains("deleted \"file\""));
    assert_eq!(json(&format!("kv delete {emu} file --destructive"))["existed"], false);
    let missing = run(&format!("kv exist {emu} file --json"));
    assert_eq!(missing.status.code(), Some(3));
    assert_eq!(serde_json::from_slice::<Value>(&missing.stdout).unwrap()["exists"], false);
    fs::write(&back, "before").unwrap();
    let error = fails(1, run(&format!("kv retrieve {emu} file {back}")));
    assert!(error.contains("KV Key Does Not Exist"), "{error}");
    assert_eq!(fs::read(&back).unwrap(), b"before", "it is unchanged");
}

#[test]
fn wrong_key_commands_say_what_to_do() {
    let emu = format!("emu:{OPTIONS}");
    let error = complains(1, feed(&format!("kv store {emu} name"), &[7; 4097]));
    assert!(error.contains("stdin has 4097 bytes") && error.contains("4096 at most"), "{error}");
    let error = complains(1, feed(&format!("kv store {emu} longer-than-8"), b"1"));
    assert!(error.contains("longer than the namespace takes"), "{error}");
    let error = complains(1, feed(&format!("kv store {emu} longer-than-16-bytes"), b"1"));
    assert!(error.contains("a key has 1 to 16 bytes"), "{error}");
    let error = fails(1, run(&format!("kv exist {emu} 0g --hex")));
    assert!(error.contains("hexadecimal digits"), "{error}");
    let error = complains(1, feed(&format!("kv store {emu} name --must-exist"), b"1"));
    assert!(error.contains("KV Key Does Not Exist"), "{error}");
    let error = fails(1, run("kv list emu:size=1M"));
    assert!(error.contains("no namespace of it has keys"), "{error}");
    let error = fails(1, run(&format!("kv list {emu} --namespace 1")));
    assert!(error.contains("namespace 1 has no keys"), "{error}");
    fails(2, run(&format!("kv store {emu} name --must-exist --must-not-exist")));
}

/// The verbs for blocks refuse the namespace, and those for all namespaces describe it.
#[test]
fn other_verbs_know_namespaces_with_keys() {
    let dir = Dir::made("other-keys");
    let served = Served::new(&dir, "size=1M,namespaces=2,kv=false+true,nn=3");
    let emu = &served.1;
    let info = json(&format!("info {emu}"));
    let namespaces = &info["namespaces"];
    assert_eq!(namespaces[1]["command_set"], "Key Value");
    assert_eq!((&namespaces[0]["max_key"], &namespaces[1]["max_key"]), (&Value::Null, &16.into()));
    assert_eq!(
        (&namespaces[1]["key_value_size"], &namespaces[1]["unusable"]),
        (&(1 << 20).into(), &Value::Null)
    );
    assert!(text(&format!("info {emu}")).contains("key value size"));
    let error = complains(1, run(&format!("read {emu} --namespace 2")));
    assert!(error.contains("it has keys and values, not blocks"), "{error}");
    let data = json(&format!("id {emu} csi-ns --csi 1 --namespace 2"));
    assert!(data.to_string().contains("max_value_length"), "{data}");
    let effects = text(&format!("log {emu} effects-log --csi 1"));
    assert!(effects.contains("Exist (14h)") && effects.contains("Store (1h)"), "{effects}");
    assert!(!effects.contains("Write (1h)"), "the numbers mean other commands in the NVM command set");
    let effects = text(&format!("log {emu} effects-log --csi 1 -o json"));
    let effects: Value = serde_json::from_str(&effects).unwrap();
    assert_eq!(effects[0]["io_cmd_set"]["IOCS_20 (Exist)"], 1);
    text(&format!("feature {emu} set key-value-configuration error_on_missing_key=1 --namespace 2"));
    let feature = text(&format!("feature {emu} get key-value-configuration --namespace 2"));
    assert!(feature.contains("error on missing key"), "{feature}");

    succeeds(feed(&format!("kv store {emu} name --destructive"), b"1"));
    let error = fails(1, run(&format!("format {emu} --namespace 2")));
    assert!(error.contains("format erases namespace 2") && error.contains("keys and values"), "{error}");
    let formatted = text(&format!("format {emu} --namespace 2 --destructive"));
    assert!(formatted.contains("1 MiB for keys and values"), "{formatted}");
    assert_eq!(json(&format!("kv list {emu}"))["count"], 0);

    text(&format!("ns delete {emu} --namespace 2 --destructive"));
    let made = text(&format!("ns create {emu} --csi 1 --size 64K"));
    assert!(made.contains("65536 bytes for keys and values, detached"), "{made}");
    let listed = text(&format!("ns list {emu}"));
    assert!(listed.contains("namespace 2: detached, 64 KiB for keys and values"), "{listed}");
    text(&format!("ns attach {emu} --namespace 2"));
    assert_eq!(json(&format!("kv list {emu}"))["size"], 65536);
    // Commands that the user builds: Exist, whose key has a length of 1.
    let error = fails(1, run(&format!("io {emu} --opcode 0x14 --namespace 2 --dword2 0x61 --dword11 1")));
    assert!(error.contains("KV Key Does Not Exist"), "{error}");
}

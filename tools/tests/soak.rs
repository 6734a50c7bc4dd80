//! `upcie soak`: it finds wrong data; kills and resets lose nothing.

mod program;

use program::{Dir, fails, run_upcie as run, succeeds};
use std::fs;

/// Reads the number before a word of the result.
#[track_caller]
fn count(text: &str, word: &str) -> u64 {
    let words: Vec<_> = text.split_whitespace().collect();
    let at = words.iter().position(|found| found.starts_with(word));
    let number = at.and_then(|at| words[at.checked_sub(1)?].replace(',', "").parse().ok());
    number.unwrap_or_else(|| panic!("no number before {word} in {text}"))
}

fn text(arguments: &str) -> String {
    String::from_utf8(succeeds(run(arguments))).unwrap()
}

#[test]
fn faults_that_are_reported_lose_nothing() {
    let directory = Dir::made("soak-reported");
    let plan = directory.path("plan.toml");
    fs::write(
        &plan,
        "seed = 3\ncache = \"1M\"\n[[fault]]\nkind = \"reorder\"\ntime = \"200us\"\nprobability = 0.1\n\
         [[fault]]\nkind = \"status\"\nstatus = 0x004\nprobability = 0.01\n",
    )
    .unwrap();
    let text = text(&format!("soak emu:size=64M,faults={plan} --time 3"));
    assert!(text.contains("no block is wrong"), "{text}");
    assert!(
        count(&text, "writes") > 0 && count(&text, "blocks") > 0 && count(&text, "commands") > 0,
        "{text}"
    );
}

#[test]
fn late_commands_come_back_by_resets() {
    let directory = Dir::made("soak-late");
    let plan = directory.path("plan.toml");
    fs::write(
        &plan,
        "[[fault]]\nkind = \"drop\"\nopcode = \"write\"\nafter = 100\ncount = 3\n\
         [[fault]]\nkind = \"lost-interrupt\"\nprobability = 0.001\n",
    )
    .unwrap();
    let text = text(&format!("soak emu:size=64M --faults {plan} --verify --time 5 --timeout 3 --log=off"));
    assert!(text.contains("no block is wrong") && !text.contains("opened the controller again"), "{text}");
    assert!(text.contains("given back by resets, each once") && count(&text, "command") > 0, "{text}");
}

#[test]
fn wrong_data_is_found() {
    let directory = Dir::made("soak-wrong");
    let plan = directory.path("plan.toml");
    fs::write(&plan, "[[fault]]\nkind = \"corrupt\"\nopcode = \"write\"\nafter = 100\ncount = 50\n").unwrap();
    let output = run(&format!("soak emu:size=64M,faults={plan} --time 60"));
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("WRONG DATA"), "{text}");
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(message.contains("must hold") && message.contains("it holds other data"), "{message}");
    let record = message.lines().find_map(|line| line.split("the record of the blocks is in ").nth(1));
    fs::remove_file(record.expect("the record's place")).unwrap();
}

#[test]
fn killed_workers_and_servers_lose_nothing_durable() {
    let directory = Dir::made("soak-killed");
    let plan = directory.path("plan.toml");
    fs::write(&plan, "cache = \"1M\"\n").unwrap();
    let disk = directory.path("disk");
    let server = format!("--server file={disk},size=64M --faults {plan}");
    let text = text(&format!("soak {server} --time 15 --kill 0.5 --length 16M --destructive --log=off"));
    assert!(text.contains("no block is wrong"), "{text}");
    assert!(count(&text, "worker") > 0 && count(&text, "server") > 0 && count(&text, "blocks") > 0, "{text}");
}

#[test]
fn impossible_soaks_are_refused() {
    for (arguments, part) in [
        ("soak emu --kill 1", "data that outlives the process"),
        ("soak emu --threads 0", "use 1 to 62"),
        ("soak emu --length 1000", "a multiple of the block size"),
        ("soak emu --offset 2T", "below the 1 GiB"),
        ("soak emu:queues=1 --threads 2", "the device granted 1"),
        ("soak emu:depth=2 --depth 2", "at most 1 command in a queue"),
        ("soak vfio-user:/none --faults plan.toml", "takes no plan"),
        ("soak emu:faults=one.toml --faults plan.toml", "have a plan already"),
        ("soak --server colour=red --kill 1", "\"colour\" is not an option"),
    ] {
        let message = fails(1, run(arguments));
        assert!(message.contains(part), "{arguments}: {message}");
    }
    assert!(fails(2, run("soak")).contains("required"));
    assert!(fails(2, run("soak emu --server size=1M")).contains("cannot be used with"));
}

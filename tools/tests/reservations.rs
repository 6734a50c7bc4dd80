//! `upcie resv`: hosts that share a namespace, each with an identifier of its own.

mod program;

use program::{Dir, Served, fails, run_upcie as run, succeeds};
use serde_json::{Value, json};

fn text(arguments: &str) -> String {
    String::from_utf8(succeeds(run(arguments))).unwrap()
}

fn json(arguments: &str) -> Value {
    serde_json::from_slice(&succeeds(run(&format!("{arguments} --json")))).unwrap()
}

/// Registrations outlast the program, which resets the controller each time.
#[test]
fn hosts_register_acquire_and_preempt() {
    let dir = Dir::made("resv");
    let served = Served::new(&dir, "size=1M");
    let emu = &served.1;
    let report = json(&format!("resv report {emu}"));
    assert_eq!((&report["rtype"], &report["regctl"], &report["gen"]), (&0.into(), &0.into(), &0.into()));

    let done = text(&format!("resv register {emu} --host-id 1 --nrkey 0xabc"));
    assert!(done.contains("registered") && done.contains("0xabc") && !done.contains("next reset"), "{done}");
    let acquired = text(&format!("resv-acquire {emu} --host-id 1 --crkey 0xabc --rtype exclusive-access"));
    assert!(acquired.contains("namespace 1: acquired: the reservation is Exclusive Access"), "{acquired}");
    let report = json(&format!("resv-report {emu} --host-id 1"));
    assert_eq!((&report["rtype"], &report["regctl"]), (&2.into(), &1.into()));
    assert_eq!(report["regctls"][0], json!({"cntlid": 1, "rcsts": 1, "hostid": 1, "rkey": 0xabc}));
    let named = succeeds(run(&format!("resv-report {emu} --host-id 1 -o json")));
    assert_eq!(serde_json::from_slice::<Value>(&named).unwrap()["regctls"], report["regctls"]);
    let shown = text(&format!("resv report {emu} --host-id 2"));
    assert!(shown.contains("host 0x1 on no controller now, key 0xabc, holds the reservation"), "{shown}");

    // Another host is told why, by the status's name.
    let conflict = format!("resv acquire {emu} --host-id 2 --crkey 5 --rtype 1");
    assert!(fails(1, run(&conflict)).contains("Reservation Conflict"));
    text(&format!("resv register {emu} --host-id 2 --nrkey 5"));
    assert!(fails(1, run(&conflict)).contains("Reservation Conflict"));
    // The program of a host that has set no identifier is another host, too.
    let error = fails(1, run(&format!("read {emu} {} --length 4K", dir.path("out"))));
    assert!(error.contains("Reservation Conflict"), "{error}");

    let taken =
        json(&format!("resv acquire {emu} --host-id 2 --crkey 5 --prkey 0xabc --racqa preempt --rtype 3"));
    assert_eq!(taken["rtype"], 3);
    let report = json(&format!("resv report {emu} --host-id 2"));
    assert_eq!((&report["regctl"], &report["regctls"][0]["hostid"]), (&1.into(), &2.into()));
    let error = fails(1, run(&format!("resv release {emu} --host-id 2 --crkey 5 --rtype 1")));
    assert!(error.contains("Invalid Field"), "{error}");
    let released = text(&format!("resv release {emu} --host-id 2 --crkey 5 --rtype 3"));
    assert!(released.contains("there is no reservation"), "{released}");
    text(&format!("resv register {emu} --host-id 2 --rrega replace --crkey 5 --nrkey 6"));
    text(&format!("resv register {emu} --host-id 2 --rrega unregister --iekey"));
    assert_eq!(json(&format!("resv report {emu}"))["regctl"], 0);
}

#[test]
fn long_host_identifiers_have_the_extended_form() {
    let dir = Dir::made("resv-long");
    let served = Served::new(&dir, "size=1M");
    let emu = &served.1;
    let id = "00112233445566778899aabbccddeeff";
    text(&format!("resv register {emu} --host-id {id} --nrkey 7"));
    let report = json(&format!("resv report {emu} --host-id {id}"));
    assert_eq!(report["regctlext"][0], json!({"cntlid": 1, "rcsts": 0, "hostid": id, "rkey": 7}));
    assert!(text(&format!("resv release {emu} --host-id {id} --crkey 7 --rrela clear")).contains("cleared"));
}

#[test]
fn wrong_reservation_commands_say_what_to_do() {
    let done = text("resv register emu:size=1M --nrkey 1");
    assert!(done.contains("until the next reset") && done.contains("--host-id"), "{done}");
    fails(2, run("resv register emu:size=1M"));
    fails(2, run("resv release emu:size=1M --crkey 1"));
    let error = fails(1, run("resv register emu:size=1M --rrega unregister --cptpl set"));
    assert!(error.contains("--cptpl goes with --rrega register"), "{error}");
    fails(2, run("resv acquire emu:size=1M --crkey 1 --rtype 7"));
    let error = fails(2, run("resv report emu:size=1M --host-id host"));
    assert!(error.contains("32 hexadecimal digits"), "{error}");
    let error = fails(1, run("resv report emu:size=1M --namespace 2"));
    assert!(error.contains("no namespace 2"), "{error}");
    let error = fails(1, run("resv acquire emu:size=1M --crkey 1 --rtype 1"));
    assert!(error.contains("Reservation Acquire (11h, Acquire) of namespace 1"), "{error}");
}

//! `nvme-emu --faults`: a plan in a file reaches the clients, and a wrong file is named.

mod program;

use program::{Dir, Served, complains, fails, run, run_upcie, succeeds};
use std::fs;

#[test]
fn a_client_sees_the_faults_of_the_plan() {
    let dir = Dir::made("faults");
    let plan = dir.path("plan.toml");
    let text = "[[fault]]\nkind = \"status\"\nstatus = 0x281\ndnr = true\nopcode = \"read\"\nlba = 8\n";
    fs::write(&plan, text).unwrap();
    let Served(_server, address) = Served::with(&dir, "size=1M", &["--faults", &plan]);
    assert_eq!(succeeds(run_upcie(&format!("read {address} --length 4096"))), [0; 4096]);
    let error = complains(1, run_upcie(&format!("read {address} --offset 4096 --length 4096")));
    assert!(error.contains("Unrecovered Read Error"), "{error}");
    succeeds(run_upcie(&format!("read {address} --offset 8192 --length 4096")));
}

#[test]
fn a_wrong_plan_is_named_by_line_and_key() {
    let dir = Dir::made("wrong-faults");
    let (plan, socket) = (dir.path("plan.toml"), dir.path("socket"));
    for (text, parts) in [
        (None, &["can't be read"][..]),
        (Some("[[fault]]\nkind = \"explode\"\n"), &["line 2", "kind", "explode"]),
        (Some("seed = 1\n[[fault]]\nkind = \"resize-namespace\"\n"), &["line 2", "blocks"]),
        (Some("[[fault]]\nkind = \"remove-namespace\"\ntarget = 3\n"), &["line 3", "target"]),
        (Some("[[fault]]\nkind = \"drop\"\nopcode = \"read\"\nqueue = \"admin\"\n"), &["line 4", "queue"]),
        (Some("[[fault]]\nkind = \"drop\"\nlba = 4096\n"), &["line 3", "lba"]),
    ] {
        let _ = fs::remove_file(&plan);
        if let Some(text) = text {
            fs::write(&plan, text).unwrap();
        }
        for flag in [format!("--faults {plan}"), format!("--options faults={plan}")] {
            let arguments = format!("--socket {socket} --size 1M {flag}");
            let error = fails(1, run(env!("CARGO_BIN_EXE_nvme-emu"), &arguments));
            assert!(
                parts.iter().all(|part| error.contains(part)) && error.contains(&plan),
                "{flag}: {error}"
            );
        }
    }
    fs::write(&plan, vec![b'#'; (1 << 20) + 1]).unwrap();
    let fifo = dir.path("fifo");
    nix::unistd::mkfifo(fifo.as_str(), nix::sys::stat::Mode::S_IRWXU).unwrap();
    for (file, part) in [
        (plan.as_str(), "longer than 1048576 bytes"),
        ("/dev/zero", "a regular file"),
        // Nobody writes to it.
        (fifo.as_str(), "a regular file"),
        (dir.path("").as_str(), "a regular file"),
    ] {
        let error = fails(1, run_upcie(&format!("info emu:faults={file}")));
        assert!(error.contains(part) && error.contains(file), "{file}: {error}");
    }
    let error = fails(2, run(env!("CARGO_BIN_EXE_nvme-emu"), &format!("--socket {socket} --faults")));
    assert!(error.contains("--faults"), "{error}");
}

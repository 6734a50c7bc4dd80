//! Compiles and runs C programs.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicUsize, Ordering},
};
use upcie_tests::process::Server;

/// Libraries that a static libupcie needs, as `upcie.pc` names them.
const PRIVATE: [&str; 5] = ["-lgcc_s", "-lutil", "-lpthread", "-lm", "-ldl"];

/// Returns the folder of the built libraries: that of the test's own program, where cargo always puts them, or the one above.
pub fn built() -> PathBuf {
    let test = std::env::current_exe().expect("the test's own path");
    let found = test.ancestors().skip(1).take(2).find(|folder| folder.join("libupcie.so").exists());
    found.unwrap_or_else(|| panic!("no libupcie.so beside {}", test.display())).to_path_buf()
}

pub fn source(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Compiles a program of one C file, as C99.
#[allow(dead_code, reason = "not every suite has such programs")]
pub fn compile(path: &str, more: &[&str]) -> PathBuf {
    let options = ["-std=c99", "-D_GNU_SOURCE", "-pedantic"].iter().chain(more).copied().collect::<Vec<_>>();
    compile_all(&[path], &options, &[])
}

/// Compiles a program against the header and the shared library.
#[allow(dead_code, reason = "not every suite has such programs")]
pub fn compile_all(paths: &[&str], options: &[&str], include: &[&str]) -> PathBuf {
    // Several tests may have the same program.
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let library = built();
    let name = Path::new(paths[0]).file_stem().expect("a file").to_string_lossy().into_owned();
    let name = format!("{name}-{}", NEXT.fetch_add(1, Ordering::Relaxed));
    let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let mut command = Command::new("cc");
    command.args(["-O1", "-g", "-Wall", "-Wextra", "-Werror"]).args(options);
    for folder in include.iter().chain(&["include"]) {
        command.arg("-I").arg(source(folder));
    }
    command.args(paths.iter().map(|path| source(path))).arg("-o").arg(&out);
    command.arg("-L").arg(&library).arg("-lupcie").arg(format!("-Wl,-rpath,{}", library.display()));
    command.args(PRIVATE);
    succeed(&mut command);
    out
}

/// Runs a program that must succeed, and returns its output.
#[allow(dead_code, reason = "not every suite runs programs")]
pub fn run(program: &Path, arguments: &[&str]) -> String {
    // The library is a debug build if this test is.
    let debug = cfg!(debug_assertions).then_some(("UPCIE_DEBUG_BUILD", "1"));
    succeed(Command::new("timeout").arg("--signal=ABRT").arg("120").arg(program).args(arguments).envs(debug))
}

/// Runs a program under valgrind's memcheck, which must find nothing wrong and nothing lost.
#[allow(dead_code, reason = "not every suite runs programs")]
pub fn run_checked(program: &Path, arguments: &[&str]) {
    if Command::new("valgrind").arg("--version").output().is_err() {
        assert!(!std::env::var("CI").is_ok_and(|value| value == "true"), "valgrind is not installed");
        println!("left out: valgrind is not installed");
        return;
    }
    let options = ["--quiet", "--error-exitcode=9", "--leak-check=full", "--errors-for-leak-kinds=definite"];
    let mut command = Command::new("timeout");
    command.args(["--signal=ABRT", "600", "valgrind", "--show-leak-kinds=definite"]).args(options);
    // The program leaves out what can't be checked.
    succeed(command.arg(program).args(arguments).env("UPCIE_CHECKED", "1"));
}

/// Runs a command that must succeed.
pub fn succeed(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}: {}\n{text}", output.status);
    text
}

/// Runs `test` on a controller with these options: in this process, and as a process of its own.
#[allow(dead_code, reason = "not every suite has devices")]
pub fn on_each_device(options: &str, test: impl Fn(&str)) {
    test(&format!("emu:{options}"));
    if Server::is_built() || std::env::var("CI").is_ok_and(|value| value == "true") {
        let server = Server::start(options);
        test(&server.address().to_string());
    } else {
        println!("left out: nvme-emu is not built (cargo build --package upcie-tools)");
    }
}

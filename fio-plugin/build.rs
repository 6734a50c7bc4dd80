//! Compiles the shim against fio's headers in `UPCIE_FIO_INCLUDE`.
//!
//! Without that variable the crate builds without the shim, so that the workspace can be checked on any machine. fio
//! refuses to load such a library.

use std::{env, fs, path::Path, process::exit};

/// fio's source directory: configured, with FIO-VERSION-FILE made.
const INCLUDE: &str = "UPCIE_FIO_INCLUDE";
/// The shim: the hot path, the other hooks, and the options.
const SOURCES: [&str; 3] = ["src/shim.c", "src/setup.c", "src/options.c"];
const HEADERS: [&str; 2] = ["src/shim.h", "src/hooks.h"];

fn main() {
    println!("cargo:rerun-if-env-changed={INCLUDE}");
    for file in SOURCES.iter().chain(&HEADERS) {
        println!("cargo:rerun-if-changed={file}");
    }
    let Some(directory) = env::var_os(INCLUDE) else {
        println!("cargo:warning=built without fio's headers, so fio will not load it: use `cargo xtask fio`");
        return;
    };
    let directory = Path::new(&directory);
    let file = |name: &str| {
        let path = directory.join(name);
        println!("cargo:rerun-if-changed={}", path.display());
        fs::read_to_string(&path).unwrap_or_else(|error| {
            fail(&format!(
                "{INCLUDE}: {}: {error}: fio's source directory is needed, after `./configure` and `make \
                 FIO-VERSION-FILE` (`cargo xtask fio` does both)",
                path.display()
            ))
        })
    };
    file("ioengines.h");
    file("config-host.h");
    let version = file("FIO-VERSION-FILE");
    let Some(version) = version.trim().strip_prefix("FIO_VERSION = ") else {
        fail(&format!("{}/FIO-VERSION-FILE has no version: {version:?}", directory.display()));
    };
    cc::Build::new()
        .files(SOURCES)
        .include(directory)
        .include("src")
        .define("UPCIE_FIO_VERSION", format!("{version:?}").as_str())
        .std("gnu11")
        .opt_level(3)
        .warnings(true)
        // Hooks have parameters that they don't use, and fio's headers have warnings of their own.
        .flag("-Wno-unused-parameter")
        .flag("-Wno-sign-compare")
        .flag("-fomit-frame-pointer")
        .cargo_metadata(false)
        .compile("upcie_shim");
    // lib.rs names the library, because tests must be linked without it: it calls functions of fio.
    println!("cargo:rustc-link-search=native={}", env::var("OUT_DIR").unwrap_or_default());
    println!("cargo:rustc-cfg=shim");
    // Thread-local destructors may run after fio has closed the library.
    println!("cargo:rustc-cdylib-link-arg=-Wl,-z,nodelete");
    // Bind lazily: a fio of another version may lack a function, and must be able to report the version first.
    println!("cargo:rustc-cdylib-link-arg=-Wl,-z,lazy");
}

fn fail(reason: &str) -> ! {
    // A panic message would hide the reason.
    println!("cargo:warning={reason}");
    eprintln!("error: {reason}");
    exit(1)
}

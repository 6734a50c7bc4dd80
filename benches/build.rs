//! Compiles the C path as a C author would, for the machine that it runs on.

fn main() {
    println!("cargo::rerun-if-changed=src/c_path.c");
    println!("cargo::rerun-if-changed=build.rs");
    cc::Build::new()
        .file("src/c_path.c")
        .std("c11")
        // In every profile of cargo, so that the peer is always the same.
        .opt_level(3)
        .debug(false)
        .force_frame_pointer(false)
        .flag("-march=native")
        .extra_warnings(true)
        .compile("c_path");
}

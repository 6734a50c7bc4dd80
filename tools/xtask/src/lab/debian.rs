//! Debian names that the guest needs, by release. Only this file has names that Debian may change.

use std::fs;

use anyhow::{Result, anyhow, bail};

/// A Debian release that provides the guest's packages.
#[derive(Debug)]
pub struct Release {
    pub version: &'static str,
    pub codename: &'static str,
    /// Suite of QEMU and the kernel.
    pub suite: &'static str,
    /// Compiler of the suite's kernel.
    pub compiler: &'static str,
}

/// Kernel series whose source files `tests/guest/build-modules.sh` knows.
pub const SERIES: &str = "6.12";
/// Oldest QEMU version that the lab was tested with.
pub const QEMU_MAJOR: u32 = 10;
/// Variable that selects how the guest runs: `kvm` or `tcg`.
pub const ACCELERATOR: &str = "UPCIE_GUEST_ACCEL";

const RELEASES: &[Release] = &[
    Release { version: "12", codename: "bookworm", suite: "bookworm-backports", compiler: "gcc-12" },
    Release { version: "13", codename: "trixie", suite: "trixie", compiler: "gcc-14" },
];

/// Suite of a QEMU with a vfio-user client.
pub struct Suite {
    pub codename: &'static str,
    pub suite: &'static str,
}

pub const VMM: Suite = Suite { codename: "trixie", suite: "trixie-backports" };

/// Packages whose programs the suites of Linux's driver run in the guest, of `VMM.codename`.
pub const PROGRAMS: &[&str] = &["nvme-cli", "e2fsprogs", "xfsprogs", "jq"];

/// Packages that must be installed besides QEMU and the compiler: tools that build the guest, and tools that
/// check the hot path.
pub const TOOLS: &[&str] = &["kmod", "make", "xz-utils", "binutils", "libc6-dev", "valgrind"];
pub const QEMU: &str = "qemu-system-x86";

impl Release {
    /// Finds the release of this machine, or explains what to do on another one.
    pub fn detect() -> Result<&'static Self> {
        if std::env::consts::ARCH != "x86_64" {
            bail!("the guest lab runs on x86-64 only; `cargo xtask test --no-guest` runs everything else");
        }
        Self::find().map_err(|(id, version)| {
            let known = RELEASES.iter().map(|release| release.version).collect::<Vec<_>>().join(" and ");
            anyhow!(
                "the guest lab needs packages of Debian {known}, but this is {id} {version}; \
                 `cargo xtask test --no-guest` runs everything else \
                 (a new release is a line in tools/xtask/src/lab/debian.rs)"
            )
        })
    }

    /// Finds the release of this machine; fails with its id and version.
    pub fn find() -> Result<&'static Self, (String, String)> {
        let text = fs::read_to_string("/etc/os-release").unwrap_or_default();
        let field = |name: &str| {
            let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
            value.unwrap_or_default().trim_matches('"').to_owned()
        };
        let (id, version) = (field("ID"), field("VERSION_ID"));
        let release = RELEASES.iter().find(|release| id == "debian" && release.version == version);
        release.ok_or((id, version))
    }

    /// Lists the packages of the kernel, as `name=version` where versions must agree.
    pub fn kernel_packages(&self, kernel: &Kernel) -> Vec<String> {
        let Kernel { release, version } = kernel;
        let common = release.trim_end_matches("-amd64");
        let same = [
            format!("linux-image-{release}"),
            format!("linux-headers-{release}"),
            format!("linux-headers-{common}-common"),
            format!("linux-kbuild-{common}"),
            format!("linux-source-{SERIES}"),
        ];
        let mut packages: Vec<_> = same.iter().map(|name| format!("{name}={version}")).collect();
        packages.push("busybox-static".to_owned());
        packages
    }
}

/// Current kernel of the suite.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kernel {
    /// Release as in `uname -r`.
    pub release: String,
    /// Version of the package.
    pub version: String,
}

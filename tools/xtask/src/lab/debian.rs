//! What the guest needs, by Debian release: the only place that knows names which Debian may move.

use std::fs;

use anyhow::{Result, anyhow, bail};

/// A Debian release whose packages make the guest.
#[derive(Debug)]
pub struct Release {
    pub version: &'static str,
    pub codename: &'static str,
    /// Where QEMU and the kernel come from.
    pub suite: &'static str,
    /// The compiler that the suite's kernel was built with.
    pub compiler: &'static str,
}

/// Series of the kernel that `tests/guest/build-modules.sh` knows the source files of.
pub const SERIES: &str = "6.12";
/// Oldest QEMU that the lab was measured with.
pub const QEMU_MAJOR: u32 = 10;
/// Set to `kvm` or `tcg`, decides how the guest runs.
pub const ACCELERATOR: &str = "UPCIE_GUEST_ACCEL";

const RELEASES: &[Release] = &[
    Release { version: "12", codename: "bookworm", suite: "bookworm-backports", compiler: "gcc-12" },
    Release { version: "13", codename: "trixie", suite: "trixie", compiler: "gcc-14" },
];

/// Where a QEMU comes from that is a vfio-user client.
pub struct Suite {
    pub codename: &'static str,
    pub suite: &'static str,
}

pub const VMM: Suite = Suite { codename: "trixie", suite: "trixie-backports" };

/// Packages that must be installed, apart from QEMU and the compiler: what builds the guest, and what looks at the hot
/// path's machine code.
pub const TOOLS: &[&str] = &["kmod", "make", "xz-utils", "binutils", "libc6-dev", "valgrind"];
pub const QEMU: &str = "qemu-system-x86";

impl Release {
    /// The release of this machine, or what to do on another one.
    pub fn detect() -> Result<&'static Self> {
        if std::env::consts::ARCH != "x86_64" {
            bail!("the guest lab runs on x86-64 only; `cargo xtask test --no-guest` runs everything else");
        }
        Self::find().map_err(|(id, version)| {
            let known = RELEASES.iter().map(|release| release.version).collect::<Vec<_>>().join(" and ");
            anyhow!(
                "the guest lab is made of the packages of Debian {known}, and this is {id} {version}; \
                 `cargo xtask test --no-guest` runs everything else \
                 (a new release is a line in tools/xtask/src/lab/debian.rs)"
            )
        })
    }

    /// The release of this machine, or what it is instead.
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

    /// Packages that make the kernel part, as `name=version` where versions must agree.
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

/// The kernel that the suite offers today.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kernel {
    /// As `uname -r` has it.
    pub release: String,
    /// Version of the package.
    pub version: String,
}

//! Table of boots, modes and suites: transports of each boot, and suites of each transport.

use crate::lab::qemu::{Iommu, Options};

/// Prefix of suites that run only on this machine.
pub const HOST_ONLY: &str = "host_";
/// Prefix of suites that run only in the guest.
pub const GUEST_ONLY: &str = "guest_";
/// Prefix of guest suites that run in every mode of a PCI function that takes all suites.
const EACH: &str = "guest_each_";
/// Prefix of suites that run fio. fio is slow in the guest, so these suites run in two modes there: with an
/// IOMMU, and without.
pub const FIO: &str = "fio_";
const FIO_MODES: &[&str] = &["vfio", "noiommu"];
/// Suites and examples that reset a controller with commands in flight. QEMU 10.0's controller then uses a queue that it has freed:
/// a crash of QEMU in one of some 15 runs. They run on `emu` and `nvme-emu`.
const NOT_ON_QEMU: &[&str] = &["reset", "example recover"];
/// Suites that bring their own devices; they run once, on this machine.
const OWN_DEVICES: &[&str] = &["hostile_server"];

/// A transport, which is a column of the matrix.
#[derive(Debug)]
pub struct Mode {
    /// Head of the column: scheme of the address, then a slash and the variant.
    pub name: &'static str,
    /// Scheme, with a colon.
    pub scheme: &'static str,
    /// Commands that init's shell runs first: they bind the driver, and set the owner of the nodes.
    pub setup: &'static str,
    /// User who runs the suites.
    pub user: &'static str,
    /// Limit of locked memory, in KiB.
    pub memlock: Option<u32>,
    /// Value of UPCIE_TEST_SCALE, the number of repetitions.
    pub scale: &'static str,
    /// The only suites of this mode; `None` for all.
    pub only: Option<&'static [&'static str]>,
}

impl Mode {
    /// Makes a mode for root with all suites.
    const fn all(name: &'static str, scheme: &'static str, setup: &'static str) -> Self {
        Self { name, scheme, setup, user: "root", memlock: None, scale: "0.02", only: None }
    }

    /// Makes a mode with some suites only.
    const fn only(
        name: &'static str,
        scheme: &'static str,
        setup: &'static str,
        suites: &'static [&'static str],
    ) -> Self {
        Self { only: Some(suites), ..Self::all(name, scheme, setup) }
    }

    /// Returns true if a suite of the tests' package runs in this mode.
    pub fn takes(&self, suite: &str) -> bool {
        match self.only {
            Some(only) => only.contains(&suite),
            None if !is_safe_on_qemu(suite) => false,
            None if suite.starts_with(FIO) => FIO_MODES.contains(&self.name),
            None => suite.starts_with(EACH) || anywhere(suite),
        }
    }
}

/// Returns true if QEMU's controllers survive a suite or an example.
pub fn is_safe_on_qemu(name: &str) -> bool {
    !NOT_ON_QEMU.contains(&name)
}

/// Returns true if a suite runs on any device.
pub fn anywhere(suite: &str) -> bool {
    !suite.starts_with(HOST_ONLY) && !suite.starts_with(GUEST_ONLY) && !OWN_DEVICES.contains(&suite)
}

/// Modes that need no guest: name of the column, and value of UPCIE_TEST_DEVICES.
pub const HOST: &[(&str, &str)] = &[("emu", "emu"), ("vfio-user", "nvme-emu")];

/// Mode of Linux's own driver, in a guest with an `nvme-emu` on this machine.
pub const LINUX: &str = "Linux on nvme-emu";
/// Name of this mode on the command line.
const LINUX_WORD: &str = "linux";

/// A boot of the guest.
#[derive(Debug)]
pub struct Boot {
    pub name: &'static str,
    /// Description for people.
    pub about: &'static str,
    iommu: Iommu,
    stock: bool,
    numa: u32,
    /// Number of huge pages of 1 GiB; they add to the guest's memory.
    giants: u32,
    /// True to add the controllers that suites of this boot alone use: one whose medium fails, one with zones, one with
    /// flexible data placement, and one with virtual functions.
    more_controllers: bool,
    /// Prefixes of suites that belong to this boot alone and choose their devices themselves. The longest
    /// matching prefix counts.
    prefixes: &'static [&'static str],
    /// Commands that init's shell runs before each of these suites.
    pub setup: &'static str,
    /// True if the examples run in this boot.
    pub examples: bool,
    pub modes: &'static [Mode],
}

impl Boot {
    pub fn options(&self) -> Options {
        let plain = Options::default();
        let memory = plain.memory + 1024 * self.giants;
        let append = match self.giants {
            0 => plain.append.clone(),
            count => format!("hugepagesz=1G hugepages={count}"),
        };
        let [failing_media, zoned, placed, virtual_functions] = [self.more_controllers; 4];
        Options {
            iommu: self.iommu,
            stock: self.stock,
            numa: self.numa,
            failing_media,
            zoned,
            placed,
            virtual_functions,
            memory,
            append,
            ..plain
        }
    }

    /// Returns true if a suite belongs to this boot alone.
    pub fn owns(&self, suite: &str) -> bool {
        let longest = BOOTS
            .iter()
            .flat_map(|boot| boot.prefixes.iter().copied())
            .chain([EACH, USER])
            .filter(|prefix| suite.starts_with(prefix))
            .max_by_key(|prefix| prefix.len());
        longest.is_some_and(|longest| self.prefixes.contains(&longest))
    }
}

/// Prefix of suites for plain users, which run only in modes that name them.
const USER: &str = "guest_user_";
/// Limit that is large enough for the suites' memory: 512 MiB, in KiB.
const ENOUGH: Option<u32> = Some(512 << 10);
/// Limit that is too small for a controller's queues and the smallest heap.
const SMALL: Option<u32> = Some(64);

/// Suites that show that a mode works and transfers data.
const SHORT: &[&str] = &["bring_up", "data_integrity"];
const PLAIN_USER: &[&str] = &["bring_up", "data_integrity", "interrupts", "second_user"];

pub const BOOTS: &[Boot] = &[
    Boot {
        name: "on",
        about: "the IOMMU translates",
        iommu: Iommu::On,
        stock: false,
        numa: 1,
        giants: 0,
        more_controllers: false,
        prefixes: &[GUEST_ONLY],
        setup: "bind vfio-pci && own root",
        examples: true,
        modes: &[
            Mode { scale: "0.05", ..Mode::all("vfio", "vfio:", "bind vfio-pci && own root") },
            Mode::all("iommufd", "iommufd:", "bind vfio-pci && own root"),
            Mode {
                user: "user",
                memlock: ENOUGH,
                ..Mode::only("vfio/user", "vfio:", "bind vfio-pci && own user", PLAIN_USER)
            },
            Mode {
                user: "user",
                memlock: ENOUGH,
                ..Mode::only("iommufd/user", "iommufd:", "bind vfio-pci && own user", PLAIN_USER)
            },
            Mode {
                user: "user",
                memlock: SMALL,
                ..Mode::only("vfio/64K", "vfio:", "bind vfio-pci && own user", &["guest_user_memlock"])
            },
            Mode {
                user: "user",
                memlock: SMALL,
                ..Mode::only("iommufd/64K", "iommufd:", "bind vfio-pci && own user", &["guest_user_memlock"])
            },
        ],
    },
    Boot {
        name: "off",
        about: "no IOMMU",
        iommu: Iommu::Off,
        stock: false,
        numa: 1,
        giants: 0,
        more_controllers: false,
        prefixes: &["guest_noiommu_"],
        setup: "bind && noiommu 0",
        examples: false,
        modes: &[
            Mode::all("noiommu", "noiommu:", "noiommu 1 && bind vfio-pci"),
            Mode::all("uio", "uio:", "bind uio_pci_generic"),
            Mode::all("sysfs", "sysfs:", "bind"),
        ],
    },
    Boot {
        name: "pt",
        about: "the IOMMU passes addresses through",
        iommu: Iommu::Pt,
        stock: false,
        numa: 1,
        giants: 2,
        more_controllers: false,
        prefixes: &["guest_pt_"],
        setup: "bind",
        examples: false,
        modes: &[
            Mode::only("uio/pt", "uio:", "bind uio_pci_generic", SHORT),
            Mode::only("sysfs/pt", "sysfs:", "bind", SHORT),
        ],
    },
    Boot {
        name: "stock",
        about: "Debian's modules as they are, the IOMMU translates",
        iommu: Iommu::On,
        stock: true,
        numa: 1,
        giants: 0,
        more_controllers: false,
        prefixes: &["guest_stock_"],
        setup: "bind vfio-pci && own root",
        examples: false,
        modes: &[Mode::only("vfio/stock", "vfio:", "bind vfio-pci && own root", SHORT)],
    },
    Boot {
        name: "stock-off",
        about: "Debian's modules as they are, no IOMMU",
        iommu: Iommu::Off,
        stock: true,
        numa: 1,
        giants: 0,
        more_controllers: false,
        prefixes: &["guest_stock_noiommu_"],
        setup: "bind",
        examples: false,
        modes: &[Mode::only("uio/stock", "uio:", "bind uio_pci_generic", SHORT)],
    },
    Boot {
        name: "numa",
        about: "two NUMA nodes, the IOMMU translates",
        iommu: Iommu::On,
        stock: false,
        numa: 2,
        giants: 0,
        more_controllers: false,
        prefixes: &["guest_numa_"],
        setup: "bind vfio-pci && own root",
        examples: false,
        modes: &[],
    },
    Boot {
        name: "errors",
        about: "controllers whose medium fails, with zones, with flexible data placement, with virtual functions",
        iommu: Iommu::On,
        stock: false,
        numa: 1,
        giants: 0,
        more_controllers: true,
        prefixes: &["guest_errors_", "guest_zones", "guest_placement", "guest_virtual_functions"],
        setup: "bind vfio-pci && own root",
        examples: false,
        modes: &[],
    },
];

/// Lists all columns in the order of the matrix.
pub fn names() -> impl Iterator<Item = &'static str> {
    let host = HOST.iter().map(|(name, _)| *name);
    host.chain(BOOTS.iter().flat_map(|boot| boot.modes.iter().map(|mode| mode.name))).chain([LINUX])
}

/// Returns true if a word of the command line names a mode or a boot.
pub fn is_known(word: &String) -> bool {
    names().any(|name| wanted(name, std::slice::from_ref(word))) || BOOTS.iter().any(|boot| boot.name == word)
}

/// Returns true if any wanted mode runs suites of the tests' package.
pub fn needs_suites(words: &[String]) -> bool {
    words.iter().any(|word| word != LINUX_WORD && word != LINUX)
}

/// Returns true if a suite runs in any wanted mode.
pub fn any_takes(suite: &str, words: &[String]) -> bool {
    let host = HOST.iter().any(|(name, _)| wanted(name, words));
    let mut guest = BOOTS.iter().flat_map(|boot| boot.modes).filter(|mode| wanted(mode.name, words));
    (host && anywhere(suite)) || guest.any(|mode| mode.takes(suite))
}

/// Returns true if one of the words wants the mode: by its name, or by the part before the slash.
pub fn wanted(mode: &str, words: &[String]) -> bool {
    let scheme = if mode == LINUX { LINUX_WORD } else { mode.split('/').next().unwrap_or(mode) };
    words.is_empty() || words.iter().any(|word| word == mode || word == scheme)
}

#[cfg(test)]
mod tests {
    use super::{BOOTS, any_takes, anywhere, names, wanted};

    fn owners(suite: &str) -> Vec<&str> {
        BOOTS.iter().filter(|boot| boot.owns(suite)).map(|boot| boot.name).collect()
    }

    #[test]
    fn the_longest_prefix_decides() {
        assert_eq!(owners("guest_lab"), ["on"]);
        assert_eq!(owners("guest_noiommu_refusals"), ["off"]);
        assert_eq!(owners("guest_pt_domains"), ["pt"]);
        assert_eq!(owners("guest_stock_iommufd"), ["stock"]);
        assert_eq!(owners("guest_stock_noiommu_refusals"), ["stock-off"]);
        assert_eq!(owners("guest_errors_media"), ["errors"]);
        assert_eq!(owners("guest_zones"), ["errors"]);
        assert_eq!(owners("guest_placement"), ["errors"]);
        assert_eq!(owners("guest_virtual_functions"), ["errors"]);
        assert_eq!(owners("guest_each_kernel_reads"), [""; 0]);
        assert_eq!(owners("guest_user_memlock"), [""; 0]);
        assert_eq!(owners("queues"), [""; 0]);
    }

    #[test]
    fn modes_take_their_own_suites() {
        let modes = || BOOTS.iter().flat_map(|boot| boot.modes);
        for mode in modes() {
            let all = mode.only.is_none();
            assert_eq!(mode.takes("queues"), all, "{}", mode.name);
            assert_eq!(mode.takes("guest_each_kernel_reads"), all, "{}", mode.name);
            assert!(!mode.takes("reset") && anywhere("reset"), "{}", mode.name);
            assert!(
                !mode.takes("host_examples") && !mode.takes("guest_lab") && !mode.takes("hostile_server")
            );
        }
        assert!(modes().any(|mode| mode.takes("guest_user_memlock")));
        let fio = modes().filter(|mode| mode.takes("fio_jobs")).map(|mode| mode.name);
        assert_eq!(fio.collect::<Vec<_>>(), ["vfio", "noiommu"]);
        assert!(anywhere("queues") && !anywhere("guest_each_kernel_reads"));
    }

    #[test]
    fn columns_have_different_names() {
        let mut all: Vec<_> = names().collect();
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), count);
        let words = ["vfio".to_owned()];
        assert!(wanted("vfio", &words) && wanted("vfio/stock", &words) && !wanted("vfio-user", &words));
    }

    #[test]
    fn only_some_modes_need_fio() {
        let any = |words: &str| {
            any_takes("fio_jobs", &words.split_terminator(',').map(str::to_owned).collect::<Vec<_>>())
        };
        assert!(any("") && any("emu") && any("vfio") && any("linux,noiommu"));
        assert!(!any("linux") && !any("iommufd,sysfs") && !any("numa"));
    }
}

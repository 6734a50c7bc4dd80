//! What runs where, as data: the guest's boots, the ways to a device that each boot has, and the suites for them.

use crate::lab::qemu::{Iommu, Options};

/// Suites so named run only here.
pub const HOST_ONLY: &str = "host_";
/// Suites so named run only in the guest.
pub const GUEST_ONLY: &str = "guest_";
/// Of those, the ones that run in every mode of a PCI function that takes all suites.
const EACH: &str = "guest_each_";
/// Suites that drive fio, which is slow in the guest: only where an IOMMU translates, and where there is none.
pub const FIO: &str = "fio_";
const FIO_MODES: &[&str] = &["vfio", "noiommu"];
/// Suites that bring devices of their own: once, on this machine.
const OWN_DEVICES: &[&str] = &["hostile_server"];

/// A way to a device, which is a column of the matrix.
#[derive(Debug)]
pub struct Mode {
    /// The column's head: the address's scheme, and after a slash what is special.
    pub name: &'static str,
    /// What stands before the PCI function in its address.
    pub scheme: &'static str,
    /// What init's shell does first: the driver that must be bound, and whose the nodes are.
    pub setup: &'static str,
    /// Who runs the suites.
    pub user: &'static str,
    /// Limit of locked memory, KiB.
    pub memlock: Option<u32>,
    /// UPCIE_TEST_SCALE: how often things are done.
    pub scale: &'static str,
    /// The only suites, where not all of them make sense or have the time.
    pub only: Option<&'static [&'static str]>,
}

impl Mode {
    /// For root, with all suites.
    const fn all(name: &'static str, scheme: &'static str, setup: &'static str) -> Self {
        Self { name, scheme, setup, user: "root", memlock: None, scale: "0.02", only: None }
    }

    /// With some suites only.
    const fn only(
        name: &'static str,
        scheme: &'static str,
        setup: &'static str,
        suites: &'static [&'static str],
    ) -> Self {
        Self { only: Some(suites), ..Self::all(name, scheme, setup) }
    }

    /// Whether a suite of the tests' package runs in this mode.
    pub fn takes(&self, suite: &str) -> bool {
        match self.only {
            Some(only) => only.contains(&suite),
            None if suite.starts_with(FIO) => FIO_MODES.contains(&self.name),
            None => suite.starts_with(EACH) || anywhere(suite),
        }
    }
}

/// Whether a suite runs over whatever device it is given.
pub fn anywhere(suite: &str) -> bool {
    !suite.starts_with(HOST_ONLY) && !suite.starts_with(GUEST_ONLY) && !OWN_DEVICES.contains(&suite)
}

/// The ways to a device that need no guest, and what the harness calls them: the columns' names, and the values of
/// UPCIE_TEST_DEVICES.
pub const HOST: &[(&str, &str)] = &[("emu", "emu"), ("vfio-user", "nvme-emu")];

/// Linux's own driver in a guest, before an `nvme-emu` on this machine.
pub const LINUX: &str = "Linux on nvme-emu";
/// What the command line calls it.
const LINUX_WORD: &str = "linux";

/// A boot of the guest.
#[derive(Debug)]
pub struct Boot {
    pub name: &'static str,
    /// For a person.
    pub about: &'static str,
    iommu: Iommu,
    stock: bool,
    numa: u32,
    /// Huge pages of 1 GiB, which come on top of the guest's memory.
    giants: u32,
    /// How the suites begin that belong to this boot alone and pick their devices themselves. The longest prefix
    /// counts.
    prefix: &'static str,
    /// What init's shell does before each of those.
    pub setup: &'static str,
    /// Whether the examples run here.
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
        Options { iommu: self.iommu, stock: self.stock, numa: self.numa, memory, append, ..plain }
    }

    /// Whether a suite belongs to this boot alone.
    pub fn owns(&self, suite: &str) -> bool {
        let longest = BOOTS
            .iter()
            .map(|boot| boot.prefix)
            .chain([EACH, USER])
            .filter(|prefix| suite.starts_with(prefix))
            .max_by_key(|prefix| prefix.len());
        longest == Some(self.prefix)
    }
}

/// Suites about what a plain user may do: only where a mode names them.
const USER: &str = "guest_user_";
/// Enough for the suites' memory, MiB times KiB.
const ENOUGH: Option<u32> = Some(512 << 10);
/// Less than a controller's queues and the smallest heap.
const SMALL: Option<u32> = Some(64);

/// Suites that show that a mode works at all, and moves data.
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
        prefix: GUEST_ONLY,
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
        prefix: "guest_noiommu_",
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
        prefix: "guest_pt_",
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
        prefix: "guest_stock_",
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
        prefix: "guest_stock_noiommu_",
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
        prefix: "guest_numa_",
        setup: "bind vfio-pci && own root",
        examples: false,
        modes: &[],
    },
];

/// All columns, in the matrix's order.
pub fn names() -> impl Iterator<Item = &'static str> {
    let host = HOST.iter().map(|(name, _)| *name);
    host.chain(BOOTS.iter().flat_map(|boot| boot.modes.iter().map(|mode| mode.name))).chain([LINUX])
}

/// Whether a word of the command line means something: a mode, or a boot's own suites.
pub fn is_known(word: &String) -> bool {
    names().any(|name| wanted(name, std::slice::from_ref(word))) || BOOTS.iter().any(|boot| boot.name == word)
}

/// Whether any mode that is meant runs suites of the tests' package.
pub fn needs_suites(words: &[String]) -> bool {
    words.iter().any(|word| word != LINUX_WORD && word != LINUX)
}

/// Whether a suite runs in any mode that is meant.
pub fn any_takes(suite: &str, words: &[String]) -> bool {
    let host = HOST.iter().any(|(name, _)| wanted(name, words));
    let mut guest = BOOTS.iter().flat_map(|boot| boot.modes).filter(|mode| wanted(mode.name, words));
    (host && anywhere(suite)) || guest.any(|mode| mode.takes(suite))
}

/// Whether a mode is meant by one of the words: its name, or what stands before the slash.
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
        assert_eq!(owners("guest_each_kernel_reads"), [""; 0]);
        assert_eq!(owners("guest_user_memlock"), [""; 0]);
        assert_eq!(owners("queues"), [""; 0]);
    }

    #[test]
    fn modes_take_what_is_theirs() {
        let modes = || BOOTS.iter().flat_map(|boot| boot.modes);
        for mode in modes() {
            let all = mode.only.is_none();
            assert_eq!(mode.takes("queues"), all, "{}", mode.name);
            assert_eq!(mode.takes("guest_each_kernel_reads"), all, "{}", mode.name);
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
    fn columns_have_names_of_their_own() {
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

//! The properties of a PCI function in sysfs.

use super::{Bdf, ConfigFile};
use crate::{Error, ErrorKind, Result};
use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// The class code of an NVMe controller: mass storage, non-volatile memory, NVM Express (NVMe over PCIe 1.0, 2.1.1).
const CLASS_NVME: u32 = 0x01_08_02;

/// A snapshot of a PCI function as the kernel shows it.
///
/// ```
/// use upcie_core::pci::{Function, functions};
///
/// for function in functions()?.iter().filter(|function| function.is_nvme()) {
///     println!("{}: {}", function.bdf, function.driver.as_deref().unwrap_or("no driver"));
/// }
/// # Ok::<(), upcie_core::Error>(())
/// ```
// Its methods are in a file for each subject: drivers, virtual functions, VMD, the kernel's lockdown.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Function {
    /// Address: domain, bus, device and function number.
    pub bdf: Bdf,
    /// Vendor id.
    pub vendor: u16,
    /// Device id.
    pub device: u16,
    /// Subsystem vendor id.
    pub subsystem_vendor: u16,
    /// Subsystem id.
    pub subsystem_device: u16,
    /// Class code, 24 bits: base class, subclass, programming interface.
    pub class: u32,
    /// Revision id.
    pub revision: u8,
    /// The driver bound to it.
    pub driver: Option<String>,
    /// IOMMU group; `None` if no IOMMU translates for it.
    pub iommu_group: Option<IommuGroup>,
    /// NUMA node, if the firmware reports one.
    pub numa_node: Option<u32>,
    /// Directory of the function in sysfs.
    pub path: PathBuf,
}

/// The functions that an IOMMU can't isolate from each other: they can only be assigned together.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct IommuGroup {
    /// Number of the group, whose node is `/dev/vfio/<number>`.
    pub number: u32,
    /// Devices of the group, sorted by name.
    pub members: Vec<GroupMember>,
    /// Set for a group that VFIO's unsafe no-IOMMU mode makes: nothing translates.
    pub is_noiommu: bool,
    /// The type of its default domain in the kernel's words: `DMA` and `DMA-FQ` translate, `identity` does not, and so
    /// on; `None` if the kernel does not report it.
    pub domain: Option<String>,
}

/// A device in an IOMMU group.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct GroupMember {
    /// The device's name: a [`Bdf`]'s text for a PCI function.
    pub name: String,
    /// The driver bound to it.
    pub driver: Option<String>,
}

/// A base address register as the firmware or the kernel has set it up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct BarInfo {
    /// Index 0–5. A 64-bit register takes up the next index too.
    pub index: u8,
    /// Address on the host's bus; 0 if none is assigned.
    pub base: u64,
    /// Size in bytes.
    pub size: u64,
    /// The kind of accesses that it decodes.
    pub kind: BarKind,
}

/// The kind of accesses that a base address register decodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BarKind {
    /// I/O ports.
    Io,
    /// Memory.
    Memory {
        /// The register has 64 bits: its address may be above 4 GiB.
        is_64bit: bool,
        /// Reads have no side effects and writes may be merged.
        prefetchable: bool,
    },
}

/// Lists all PCI functions of this machine, sorted by address.
///
/// # Errors
/// sysfs can't be read.
pub fn functions() -> Result<Vec<Function>> {
    Sysfs::default().functions()
}

impl Function {
    /// Looks up the function at `bdf`.
    ///
    /// # Errors
    /// [`Failure::NotFound`](crate::Failure::NotFound) when the function does not exist, and the system's errors.
    pub fn at(bdf: Bdf) -> Result<Self> {
        Sysfs::default().function(bdf)
    }

    /// Returns whether its class code is that of an NVMe controller.
    pub fn is_nvme(&self) -> bool {
        self.class == CLASS_NVME
    }

    /// Makes the error of a function that is not bound to `wanted` (`None`: that is bound to any driver), with the way
    /// out.
    pub(crate) fn wrong_driver(&self, wanted: Option<&str>) -> Error {
        let bdf = self.bdf;
        let state = match self.driver.as_deref() {
            None => "no driver is bound to it; as root".to_owned(),
            Some("nvme") => {
                "it is bound to the kernel's own driver, nvme: unmount its file systems, then as root"
                    .to_owned()
            }
            Some(other) => format!("it is bound to another driver, {other}; as root"),
        };
        let way_out = match wanted {
            Some(driver) => format!("devbind bind {driver} {bdf}"),
            None => format!("devbind unbind {bdf}"),
        };
        Error::unusable(bdf.to_string(), format!("{state}: `{way_out}`"))
    }

    /// Lists its base address registers, without absent ones.
    ///
    /// # Errors
    /// sysfs can't be read, or has an unexpected format.
    pub fn bars(&self) -> Result<Vec<BarInfo>> {
        let path = self.path.join("resource");
        let text = read(&path)?;
        // Later lines are the expansion ROM and bridge windows.
        (0u8..6)
            .zip(text.lines())
            .filter_map(|(index, line)| {
                parse_resource(index, line)
                    .ok_or_else(|| malformed(&path, line))
                    .map(|bar| (bar.size > 0).then_some(bar))
                    .transpose()
            })
            .collect()
    }

    /// Opens its configuration space through sysfs: all of it for root, the first 64 bytes for others. A bound driver
    /// does not expect changes of it.
    ///
    /// # Errors
    /// The system's errors.
    pub fn config(&self) -> Result<ConfigFile> {
        ConfigFile::open(self.bdf.to_string(), &self.path.join("config"))
    }
}

/// The root of the kernel's device tree: `/sys`, or a test's directory.
#[derive(Debug, Clone)]
pub(crate) struct Sysfs {
    pub(crate) root: PathBuf,
}

impl Default for Sysfs {
    fn default() -> Self {
        Self { root: "/sys".into() }
    }
}

impl Sysfs {
    fn devices(&self) -> PathBuf {
        self.root.join("bus/pci/devices")
    }

    /// Lists all functions: see [`functions`].
    pub(crate) fn functions(&self) -> Result<Vec<Function>> {
        let directory = self.devices();
        let entries = match fs::read_dir(&directory) {
            Ok(entries) => entries,
            // A machine without PCI.
            Err(e) if e.kind() == io::ErrorKind::NotFound && self.root.exists() => return Ok(Vec::new()),
            Err(e) => return Err(Error::os(directory.display().to_string(), "listing PCI functions", e)),
        };
        let mut found = Vec::new();
        for entry in entries {
            let entry =
                entry.map_err(|e| Error::os(directory.display().to_string(), "listing PCI functions", e))?;
            let Some(bdf) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            match self.function(bdf) {
                Ok(function) => found.push(function),
                // Removed since the directory was listed.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(e) => return Err(e),
            }
        }
        found.sort_by_key(|function| function.bdf);
        Ok(found)
    }

    /// Looks up a function: see [`Function::at`].
    pub(crate) fn function(&self, bdf: Bdf) -> Result<Function> {
        let path = self.devices().join(bdf.to_string());
        self.read_function(bdf, &path).map_err(|error| {
            if path.exists() {
                return error;
            }
            Error::not_found(
                bdf.to_string(),
                format!(
                    "there is no {}; see `upcie list` or `lspci -D`, or echo 1 > /sys/bus/pci/rescan",
                    path.display()
                ),
            )
        })
    }

    fn read_function(&self, bdf: Bdf, path: &Path) -> Result<Function> {
        Ok(Function {
            bdf,
            vendor: hex(&path.join("vendor"))? as u16,
            device: hex(&path.join("device"))? as u16,
            subsystem_vendor: hex(&path.join("subsystem_vendor"))? as u16,
            subsystem_device: hex(&path.join("subsystem_device"))? as u16,
            class: hex(&path.join("class"))? & 0xff_ffff,
            revision: hex(&path.join("revision"))? as u8,
            driver: link_name(&path.join("driver"))?,
            iommu_group: iommu_group(&path.join("iommu_group"))?,
            // The kernel writes -1 if the node is unknown.
            numa_node: read(&path.join("numa_node")).ok().and_then(|text| text.trim().parse().ok()),
            path: path.to_owned(),
        })
    }
}

fn iommu_group(link: &Path) -> Result<Option<IommuGroup>> {
    let Some(name) = link_name(link)? else { return Ok(None) };
    let number = name.parse().map_err(|_| malformed(link, &name))?;
    let directory = link.join("devices");
    let failed = |e| Error::os(directory.display().to_string(), "listing an IOMMU group", e);
    let mut members = Vec::new();
    for entry in fs::read_dir(&directory).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let driver = link_name(&entry.path().join("driver"))?;
        members.push(GroupMember { name: entry.file_name().to_string_lossy().into_owned(), driver });
    }
    members.sort_by(|a, b| a.name.cmp(&b.name));
    let is_noiommu = read(&link.join("name")).is_ok_and(|name| name.trim() == "vfio-noiommu");
    let domain = read(&link.join("type")).ok().map(|domain| domain.trim().to_owned());
    Ok(Some(IommuGroup { number, members, is_noiommu, domain }))
}

/// Returns the last component of a symbolic link's target; `None` if the link does not exist.
pub(crate) fn link_name(link: &Path) -> Result<Option<String>> {
    match fs::read_link(link) {
        Ok(target) => Ok(target.file_name().map(|name| name.to_string_lossy().into_owned())),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Error::os(link.display().to_string(), "reading the link", e)),
    }
}

/// Parses a line of `resource`: first and last address, and the kernel's IORESOURCE_* flags.
fn parse_resource(index: u8, line: &str) -> Option<BarInfo> {
    const IO: u64 = 0x100;
    const MEMORY: u64 = 0x200;
    const PREFETCHABLE: u64 = 0x2000;
    const MEMORY_64: u64 = 0x10_0000;
    let mut words = line.split_whitespace().map(parse_hex);
    let [base, last, flags] = [words.next()??, words.next()??, words.next()??];
    let size = if flags & (IO | MEMORY) == 0 { 0 } else { last.checked_sub(base)?.checked_add(1)? };
    let kind = if flags & IO != 0 {
        BarKind::Io
    } else {
        BarKind::Memory { is_64bit: flags & MEMORY_64 != 0, prefetchable: flags & PREFETCHABLE != 0 }
    };
    Some(BarInfo { index, base, size, kind })
}

fn parse_hex(text: &str) -> Option<u64> {
    let text = text.trim();
    u64::from_str_radix(text.strip_prefix("0x").unwrap_or(text), 16).ok()
}

fn hex(path: &Path) -> Result<u32> {
    let text = read(path)?;
    parse_hex(&text).and_then(|value| value.try_into().ok()).ok_or_else(|| malformed(path, &text))
}

pub(super) fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).map_err(|e| Error::os(path.display().to_string(), "reading it", e))
}

fn malformed(path: &Path, text: &str) -> Error {
    Error::protocol(
        path.display().to_string(),
        "reading it",
        format!("{:?} is not in the kernel's format", text.trim()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::FakeSysfs;

    #[test]
    fn functions_are_read_from_sysfs() {
        let fake = FakeSysfs::new("functions");
        fake.add("0000:02:00.0", "0x010802\n", None, Some(7));
        let path = fake.add("0000:01:00.0", "0x010802\n", Some("vfio-pci"), Some(7));
        fs::write(path.join("numa_node"), "1\n").unwrap();
        fake.add("0000:00:01.0", "0x060400\n", Some("pcieport"), None);
        let all = fake.sysfs().functions().unwrap();
        let names: Vec<_> = all.iter().map(|f| f.bdf.to_string()).collect();
        assert_eq!(names, ["0000:00:01.0", "0000:01:00.0", "0000:02:00.0"], "sorted");
        let nvme = &all[1];
        assert!(nvme.is_nvme() && !all[0].is_nvme());
        assert_eq!((nvme.vendor, nvme.device, nvme.revision), (0x1b36, 0x10, 2));
        assert_eq!((nvme.subsystem_vendor, nvme.subsystem_device), (0x1af4, 0x1100));
        assert_eq!(nvme.driver.as_deref(), Some("vfio-pci"));
        assert_eq!((nvme.numa_node, all[2].numa_node), (Some(1), None));
        assert!(all[0].iommu_group.is_none());
        let group = nvme.iommu_group.as_ref().unwrap();
        assert_eq!((group.number, group.is_noiommu), (7, false));
        let members: Vec<_> = group.members.iter().map(|m| (m.name.as_str(), m.driver.as_deref())).collect();
        assert_eq!(members, [("0000:01:00.0", Some("vfio-pci")), ("0000:02:00.0", None)]);
    }

    #[test]
    fn an_unknown_function_is_not_found() {
        let error = FakeSysfs::new("none").function("0000:09:00.0").unwrap_err();
        assert!(matches!(error.failure(), crate::Failure::NotFound { .. }), "{error}");
    }

    #[test]
    fn invalid_contents_are_reported_with_the_file() {
        let fake = FakeSysfs::new("garbage");
        let path = fake.add("0000:01:00.0", "0x010802\n", None, None);
        fs::write(path.join("vendor"), "nonsense").unwrap();
        let error = fake.function("0000:01:00.0").unwrap_err().to_string();
        assert!(error.contains("vendor") && error.contains("nonsense"), "{error}");
    }

    #[test]
    fn absent_bars_are_not_listed() {
        let fake = FakeSysfs::new("bars");
        let path = fake.add("0000:01:00.0", "0x010802\n", None, None);
        let rest = "0x0000000000000000 0x0000000000000000 0x0000000000000000\n";
        let text = format!(
            "0x00000000fe000000 0x00000000fe003fff 0x0000000000140204\n{rest}\
             0x0000000800000000 0x0000000800ffffff 0x000000000014220c\n{rest}\
             0x000000000000c000 0x000000000000c07f 0x0000000000040101\n{rest}\
             0x00000000fe010000 0x00000000fe01ffff 0x0000000000046200\n"
        );
        fs::write(path.join("resource"), text).unwrap();
        let function = fake.function("0000:01:00.0").unwrap();
        let memory = |is_64bit, prefetchable| BarKind::Memory { is_64bit, prefetchable };
        assert_eq!(
            function.bars().unwrap(),
            [
                BarInfo { index: 0, base: 0xfe00_0000, size: 0x4000, kind: memory(true, false) },
                BarInfo { index: 2, base: 0x8_0000_0000, size: 16 << 20, kind: memory(true, true) },
                BarInfo { index: 4, base: 0xc000, size: 0x80, kind: BarKind::Io },
            ]
        );
        for bad in ["0x10 0x0 0x200", "0x0 0xffffffffffffffff 0x200", "0x0 0x1", "zz 0x1 0x200"] {
            fs::write(path.join("resource"), bad).unwrap();
            assert!(function.bars().is_err(), "{bad}");
        }
    }
}

//! Functions on the command line: by address, or by the kernel's name of a disk, a controller or an interface.

use crate::{report, usage::names};
use std::{
    fs,
    path::{Component, Path},
};
use upcie_core::pci::Bdf;

/// The classes in sysfs whose devices have names that people type.
const CLASSES: [&str; 4] = ["block", "nvme", "nvme-generic", "net"];

/// A function on the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    bdf: Bdf,
    /// The name that was typed in place of the address.
    name: Option<String>,
}

/// Parses an address, or a name that sysfs knows.
pub fn parse(text: &str) -> Result<Named, String> {
    parse_in(Path::new("/sys"), text)
}

/// Returns the addresses, and prints what the names stand for.
pub fn addresses(functions: &[Named]) -> Vec<Bdf> {
    for Named { bdf, name } in functions {
        if let Some(name) = name {
            report(format_args!("{name} is {bdf}"));
        }
    }
    functions.iter().map(|function| function.bdf).collect()
}

fn parse_in(sys: &Path, text: &str) -> Result<Named, String> {
    if let Ok(bdf) = text.parse() {
        return Ok(Named { bdf, name: None });
    }
    // A node may be a link to another one, such as those in /dev/disk.
    let node = if text.starts_with("/dev/") { fs::canonicalize(text).ok() } else { None };
    let name = node.as_deref().and_then(Path::to_str).unwrap_or(text);
    let name = name.strip_prefix("/dev/").unwrap_or(name);
    let is_plain = matches!(Path::new(name).components().collect::<Vec<_>>()[..], [Component::Normal(_)]);
    let found = CLASSES.iter().map(|class| sys.join("class").join(class).join(name));
    let found = found.filter(|_| is_plain).find_map(|link| fs::canonicalize(link).ok());
    let Some(path) = found else {
        return Err(
            "no PCI address (0000:01:00.0 or 01:00.0), and no disk, controller or interface of this machine (nvme0n1)"
                .into(),
        );
    };
    let bdf = function_of(&path).map_err(|reason| format!("{name} {reason}"))?;
    Ok(Named { bdf, name: Some(name.to_owned()) })
}

/// Returns the function to which the device at `path` in sysfs belongs.
///
/// # Errors
/// There is none, or it may have other devices. The text continues a sentence that begins with the device's name.
fn function_of(path: &Path) -> Result<Bdf, String> {
    if let Some(bdf) = owner(path)? {
        return Ok(bdf);
    }
    // With multipath an NVMe disk belongs to the subsystem, which has links to its controllers.
    let mut controllers = Vec::new();
    if let Some(subsystem) = path.ancestors().find(|path| is_subsystem(path)) {
        let links =
            names(subsystem).into_iter().filter_map(|name| fs::canonicalize(subsystem.join(name)).ok());
        for controller in links.filter(|real| !real.starts_with(subsystem)) {
            controllers.extend(owner(&controller)?);
        }
    }
    controllers.sort();
    controllers.dedup();
    match controllers[..] {
        [bdf] => Ok(bdf),
        [] => Err("is no device of a PCI function".into()),
        _ => {
            let all: Vec<_> = controllers.iter().map(Bdf::to_string).collect();
            Err(format!("belongs to several functions: type the address of one: {}", all.join(", ")))
        }
    }
}

fn is_subsystem(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str());
    name.is_some_and(|name| name.starts_with("nvme-subsys"))
}

/// Returns the last function on the way to a device; `None` if there is none.
///
/// # Errors
/// The function is an adapter, of which the device is one of several perhaps.
fn owner(path: &Path) -> Result<Option<Bdf>, String> {
    let parts: Vec<&str> = path.iter().filter_map(|part| part.to_str()).collect();
    let found = parts.iter().enumerate().rev().find_map(|(at, part)| Some((at, part.parse::<Bdf>().ok()?)));
    let Some((at, bdf)) = found else { return Ok(None) };
    let is_adapter = |part: &&str| {
        ["usb", "ata", "host"].iter().any(|bus| {
            part.strip_prefix(bus).is_some_and(|rest| rest.starts_with(|first: char| first.is_ascii_digit()))
        })
    };
    match parts[at + 1..].iter().any(is_adapter) {
        true => Err(format!("hangs on {bdf}, which may have other devices: type that address to take all")),
        false => Ok(Some(bdf)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{os::unix::fs::symlink, path::PathBuf};

    struct Sysfs(PathBuf);

    impl Sysfs {
        fn new() -> Self {
            let path = std::env::temp_dir().join(format!("devbind-named-{}", std::process::id()));
            let _ = fs::remove_dir_all(&path);
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        /// Makes a device of a class.
        fn device(&self, class: &str, path: &str) {
            let (path, class) = (self.0.join("devices").join(path), self.0.join("class").join(class));
            fs::create_dir_all(&path).unwrap();
            fs::create_dir_all(&class).unwrap();
            symlink(&path, class.join(path.file_name().unwrap())).unwrap();
        }

        fn parse(&self, text: &str) -> Result<String, String> {
            parse_in(&self.0, text).map(|named| named.bdf.to_string())
        }
    }

    impl Drop for Sysfs {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn names_lead_to_their_functions() {
        let sysfs = Sysfs::new();
        let nvme = "pci0000:00/0000:00:01.0/0000:01:00.0/nvme/nvme0";
        sysfs.device("nvme", nvme);
        sysfs.device("block", &format!("{nvme}/nvme0n1"));
        sysfs.device("block", &format!("{nvme}/nvme0n1/nvme0n1p2"));
        sysfs.device("nvme-generic", &format!("{nvme}/ng0n1"));
        sysfs.device("block", "pci0000:00/0000:00:03.0/virtio0/block/vda");
        sysfs.device("net", "pci0000:00/0000:00:04.0/net/eth0");
        sysfs.device("block", "pci0000:00/0000:00:1f.2/ata1/host0/target0:0:0/0:0:0:0/block/sda");
        sysfs.device("block", "pci0000:00/0000:00:14.0/usb1/1-1/1-1:1.0/host2/block/sdb");
        sysfs.device("block", "virtual/block/dm-0");
        for name in ["nvme0", "/dev/nvme0", "nvme0n1", "/dev/nvme0n1", "nvme0n1p2", "ng0n1", "01:00.0"] {
            assert_eq!(sysfs.parse(name).as_deref(), Ok("0000:01:00.0"), "{name}");
        }
        assert_eq!(sysfs.parse("vda").as_deref(), Ok("0000:00:03.0"));
        assert_eq!(sysfs.parse("eth0").as_deref(), Ok("0000:00:04.0"));
        for (name, part) in [
            ("sda", "hangs on 0000:00:1f.2"),
            ("sdb", "hangs on 0000:00:14.0"),
            ("dm-0", "dm-0 is no device of a PCI function"),
            ("nvme7", "01:00.0"),
            ("", "01:00.0"),
            ("..", "01:00.0"),
            ("../nvme/nvme0", "01:00.0"),
            ("01:00", "0000:01:00.0 or 01:00.0"),
        ] {
            let error = sysfs.parse(name).unwrap_err();
            assert!(error.contains(part), "{name}: {error}");
        }
        // With multipath the disk belongs to the subsystem.
        let subsystem = "virtual/nvme-subsystem/nvme-subsys1";
        sysfs.device("block", &format!("{subsystem}/nvme1n1"));
        let controllers = ["0000:02:00.0/nvme/nvme1", "0000:03:00.0/nvme/nvme2"];
        for (controller, expected) in
            controllers.into_iter().zip([Ok("0000:02:00.0"), Err("several functions")])
        {
            sysfs.device("nvme", controller);
            let link = sysfs.0.join("devices").join(subsystem).join(controller.rsplit('/').next().unwrap());
            symlink(sysfs.0.join("devices").join(controller), link).unwrap();
            match (sysfs.parse("nvme1n1"), expected) {
                (Ok(found), Ok(expected)) => assert_eq!(found, expected),
                (Err(error), Err(part)) => {
                    assert!(error.contains(part) && error.contains("0000:03:00.0"), "{error}")
                }
                (found, _) => panic!("{controller}: {found:?}"),
            }
        }
    }
}

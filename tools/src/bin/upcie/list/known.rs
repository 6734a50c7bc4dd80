//! The properties of a controller that its PCI function does not tell: from the kernel's driver, or from the controller.

use crate::{target::Target, units};
use serde_json::{Map, Value, json};
use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};
use upcie_core::Chain;
use upcie_nvme::{Address, Controller, Namespace, spec::SmartLog};
use upcie_tools::usage::{Host, names};

/// Identity, capacity and temperature of a controller.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Known {
    model: String,
    serial: String,
    firmware: String,
    /// Number of active namespaces; those that have a disk, if the kernel's driver tells.
    namespaces: Option<u64>,
    /// Bytes of these namespaces.
    size: Option<u64>,
    /// Composite temperature in degrees Celsius.
    temperature: Option<i64>,
    /// Each namespace or disk, by nvme-cli's names, as far as it is known.
    devices: Vec<Map<String, Value>>,
    /// Reasons why some of it is unknown.
    unknown: Vec<String>,
}

impl Known {
    /// Reads the files of the kernel's driver for the function at `path` in sysfs; `None` if the driver does not have it. No
    /// device is opened.
    pub fn of_kernel(path: &Path, host: &Host) -> Option<Self> {
        let name = names(&path.join("nvme")).into_iter().next()?;
        let controller = path.join("nvme").join(name);
        // The device wrote them: nothing that a terminal obeys is printed.
        let shown = |c: char| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c };
        let read = |name: &str| -> Option<String> {
            let text = fs::read_to_string(controller.join(name)).ok()?;
            Some(text.trim().chars().map(shown).collect())
        };
        let disks: Vec<_> = host.blocks(path).into_iter().filter(|block| !block.is_partition).collect();
        Some(Self {
            model: read("model")?,
            serial: read("serial")?,
            firmware: read("firmware_rev")?,
            namespaces: Some(disks.len() as u64),
            size: Some(disks.iter().fold(0_u64, |sum, disk| sum.saturating_add(disk.size))),
            temperature: temperature(path, &controller),
            devices: disks.iter().map(|disk| described_disk(&disk.name, disk.size)).collect(),
            unknown: Vec::new(),
        })
    }

    /// Asks the controller itself: opens it, which resets it and brings it up.
    ///
    /// # Errors
    /// It does not open.
    pub fn ask(address: &Address, timeout: Duration) -> anyhow::Result<Self> {
        let target = Target { address: address.clone() };
        let controller = target.open_to_read(Controller::builder().timeout(timeout))?;
        let id = controller.identify();
        let mut known =
            Self { model: id.model(), serial: id.serial(), firmware: id.firmware(), ..Self::default() };
        match controller.namespaces() {
            Ok(all) => {
                known.namespaces = Some(all.len() as u64);
                known.size = Some(all.iter().map(bytes).fold(0, u64::saturating_add));
                known.devices = all.iter().map(described).collect();
            }
            Err(error) => known.unknown.push(format!("namespaces: {}", Chain(&error))),
        }
        match controller.log::<SmartLog>() {
            // 0 stands for a controller that does not measure it.
            Ok(log) if log.temperature() == 0 => {}
            Ok(log) => known.temperature = Some(units::celsius(log.temperature().into())),
            Err(error) => known.unknown.push(format!("temperature: {}", Chain(&error))),
        }
        Ok(known)
    }

    /// Returns the lines for people.
    pub fn lines(&self) -> Vec<String> {
        let Self { model, serial, firmware, .. } = self;
        let mut lines = vec![format!("{model}, serial number {serial}, firmware {firmware}")];
        let parts = [
            self.namespaces.map(|count| units::number(count, "namespace")),
            self.size.map(units::bytes),
            self.temperature.map(|degrees| format!("{degrees} °C")),
        ];
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        if !parts.is_empty() {
            lines.push(parts.join(", "));
        }
        lines.extend(self.unknown.iter().map(|reason| format!("unknown: {reason}")));
        lines
    }

    /// Returns the devices as `nvme list -o json` has them; `address` is the path of those that have no other.
    pub fn devices(&self, address: &str) -> Vec<Value> {
        let all = self.devices.iter().map(|device| {
            let mut device = device.clone();
            device.entry("DevicePath").or_insert(address.into());
            device.insert("Firmware".into(), self.firmware.as_str().into());
            device.insert("ModelNumber".into(), self.model.as_str().into());
            device.insert("SerialNumber".into(), self.serial.as_str().into());
            device.into()
        });
        all.collect()
    }

    /// Returns the object for programs.
    pub fn to_json(&self) -> Value {
        json!({
            "model": self.model,
            "serial": self.serial,
            "firmware": self.firmware,
            "namespaces": self.namespaces,
            "size_bytes": self.size,
            "temperature_celsius": self.temperature,
            "unknown": self.unknown,
        })
    }
}

/// Describes a disk of the kernel's: `nvme0n1` is namespace 1.
fn described_disk(name: &str, size: u64) -> Map<String, Value> {
    let nsid = name.rsplit('n').next().and_then(|nsid| nsid.parse::<u32>().ok());
    let fields = [
        ("NameSpace", nsid.into()),
        ("DevicePath", format!("/dev/{name}").into()),
        ("PhysicalSize", size.into()),
    ];
    fields.map(|(name, value): (&str, Value)| (name.to_owned(), value)).into_iter().collect()
}

/// Describes a namespace of a controller that was asked.
fn described(namespace: &Namespace) -> Map<String, Value> {
    let id = namespace.identify();
    let sector = id.block_size().unwrap_or(0);
    let fields = [
        ("NameSpace", namespace.nsid().into()),
        ("UsedBytes", id.nuse.saturating_mul(sector).into()),
        ("MaximumLBA", id.nsze.into()),
        ("PhysicalSize", bytes(namespace).into()),
        ("SectorSize", sector.into()),
    ];
    fields.map(|(name, value): (&str, Value)| (name.to_owned(), value)).into_iter().collect()
}

/// Returns the bytes of data of a namespace.
fn bytes(namespace: &Namespace) -> u64 {
    match namespace.keys() {
        Ok(keys) => keys.size(),
        Err(_) => {
            let id = namespace.identify();
            id.nsze.saturating_mul(id.block_size().unwrap_or(0))
        }
    }
}

/// Reads the composite temperature in degrees Celsius from the driver's hwmon device, which belongs to the controller or, on
/// older kernels, to the function.
fn temperature(function: &Path, controller: &Path) -> Option<i64> {
    let parents = [controller.to_owned(), controller.join("hwmon"), function.join("hwmon")];
    let mut devices = parents.iter().flat_map(|parent| {
        let found = names(parent).into_iter().filter(|name| name.starts_with("hwmon") && name != "hwmon");
        found.map(move |name| parent.join(name))
    });
    // Thousandths of a degree.
    let read = |device: PathBuf| {
        let text = fs::read_to_string(device.join("temp1_input")).ok()?;
        text.trim().parse::<i64>().ok()
    };
    let thousandths = devices.find_map(read)?;
    Some((thousandths as f64 / 1000.0).round() as i64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    const FUNCTION: &str = "sys/devices/pci0000:00/0000:01:00.0";

    /// A machine with a controller that the kernel's driver has.
    struct Machine(PathBuf);

    impl Machine {
        fn new(name: &str) -> Self {
            let machine =
                Self(std::env::temp_dir().join(format!("upcie-list-{name}-{}", std::process::id())));
            let _ = fs::remove_dir_all(&machine.0);
            machine.file("proc/self/mountinfo", "");
            machine.file(&format!("{FUNCTION}/class"), "0x010802\n");
            machine
        }

        fn file(&self, path: &str, text: &str) {
            let path = self.0.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }

        /// Makes files of the controller.
        fn controller(&self, files: &[(&str, &str)]) {
            for (name, text) in files {
                self.file(&format!("{FUNCTION}/nvme/nvme0/{name}"), text);
            }
        }

        /// Makes a disk of so many units of 512 bytes.
        fn disk(&self, name: &str, units: u64) {
            let path = format!("{FUNCTION}/nvme/nvme0/{name}");
            self.file(&format!("{path}/size"), &format!("{units}\n"));
            self.file(&format!("{path}/dev"), "259:0\n");
            fs::create_dir_all(self.0.join("sys/class/block")).unwrap();
            symlink(self.0.join(path), self.0.join("sys/class/block").join(name.rsplit('/').next().unwrap()))
                .unwrap();
        }

        fn known(&self) -> Option<Known> {
            Known::of_kernel(&self.0.join(FUNCTION), &Host::at(&self.0).unwrap())
        }
    }

    impl Drop for Machine {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    const NAMES: [(&str, &str); 3] =
        [("model", "Disk \u{1b}[1m \n"), ("serial", "S1   \n"), ("firmware_rev", "1.0\n")];

    #[test]
    fn the_kernels_attributes_describe_the_controller() {
        let machine = Machine::new("kernel");
        assert_eq!(machine.known(), None);
        machine.controller(&NAMES);
        machine.disk("nvme0n1", 4096);
        machine.disk("nvme0n1/nvme0n1p1", 1024);
        machine.file(&format!("{FUNCTION}/nvme/nvme0/nvme0n1/nvme0n1p1/partition"), "1\n");
        machine.disk("nvme0n2", 2048);
        machine.controller(&[("hwmon3/temp1_input", "35850\n")]);
        let known = machine.known().unwrap();
        let expected = Known {
            model: "Disk \u{fffd}[1m".into(),
            serial: "S1".into(),
            firmware: "1.0".into(),
            namespaces: Some(2),
            size: Some(3 << 20),
            temperature: Some(36),
            devices: vec![described_disk("nvme0n1", 2 << 20), described_disk("nvme0n2", 1 << 20)],
            unknown: Vec::new(),
        };
        assert_eq!(known, expected);
        assert_eq!(known.lines()[1], "2 namespaces, 3 MiB, 36 °C");
        let second = json!({
            "NameSpace": 2, "DevicePath": "/dev/nvme0n2", "PhysicalSize": 1 << 20,
            "Firmware": "1.0", "ModelNumber": "Disk \u{fffd}[1m", "SerialNumber": "S1",
        });
        assert_eq!(known.devices("0000:01:00.0")[1], second);
        let json = known.to_json();
        assert_eq!((&json["size_bytes"], &json["temperature_celsius"]), (&(3 << 20).into(), &36.into()));
    }

    #[test]
    fn a_temperature_may_belong_to_the_function_or_be_absent() {
        let machine = Machine::new("hwmon");
        machine.controller(&NAMES);
        let known = machine.known().unwrap();
        assert_eq!((known.namespaces, known.temperature), (Some(0), None));
        assert_eq!(known.lines()[1], "0 namespaces, 0 B");
        machine.file(&format!("{FUNCTION}/hwmon/hwmon1/temp1_input"), "-5000\n");
        assert_eq!(machine.known().unwrap().temperature, Some(-5));
    }

    #[test]
    fn a_controller_tells_of_itself() {
        let address = "emu:size=1M,namespaces=2,serial=LIST1".parse().unwrap();
        let known = Known::ask(&address, Duration::from_secs(30)).unwrap();
        assert_eq!((known.namespaces, known.size), (Some(2), Some(2 << 20)));
        assert!(
            known.temperature.is_some_and(|degrees| degrees > 0) && known.unknown.is_empty(),
            "{known:?}"
        );
        let keys = Known::ask(&"emu:size=1M,kv=true,serial=LIST2".parse().unwrap(), Duration::from_secs(30))
            .unwrap();
        assert_eq!((keys.namespaces, keys.size), (Some(1), Some(1 << 20)));
    }
}

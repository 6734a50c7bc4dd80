//! Suggests an address for a name that other programs use.

use std::{fs, path::Path};

/// Suggests the address that `input` probably means; `None` if it resembles no known name.
pub(super) fn hint(input: &str) -> Option<String> {
    hint_in(Path::new("/sys"), input)
}

fn hint_in(sysfs: &Path, input: &str) -> Option<String> {
    let name = input.strip_prefix("/dev/").unwrap_or(input);
    if let Some(value) = field(input, "traddr") {
        return Some(match field(input, "trtype").unwrap_or_default().to_ascii_lowercase().as_str() {
            "pcie" | "" => format!("type {value}"),
            "vfiouser" => format!("type vfio-user:{value}/cntrl"),
            other => format!("NVMe over {other} is not for this driver: it takes PCIe and vfio-user"),
        });
    }
    let number = name.strip_prefix("nvme").or_else(|| name.strip_prefix("ng"))?;
    let digits = number.find(|c: char| !c.is_ascii_digit()).unwrap_or(number.len());
    if digits == 0 {
        return None;
    }
    let controller = format!("nvme{}", &number[..digits]);
    let function = fs::read_link(sysfs.join("class/nvme").join(&controller).join("device"));
    let bdf = function.ok().and_then(|path| Some(path.file_name()?.to_str()?.to_owned()));
    Some(match bdf {
        Some(bdf) => format!(
            "the kernel's driver has it: hand it over, as root, by `devbind bind vfio-pci {bdf}`, then type {bdf}"
        ),
        None => "that is a name of the kernel's driver: type the controller's PCI address, which `upcie list` shows".into(),
    })
}

/// Returns a field of a transport id: `key=value` or `key:value`, separated by spaces.
fn field<'a>(input: &'a str, key: &str) -> Option<&'a str> {
    input.split_whitespace().find_map(|word| word.strip_prefix(key)?.strip_prefix(['=', ':']))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn names_of_other_programs_are_translated() {
        let root = std::env::temp_dir().join(format!("upcie-hint-{}", std::process::id()));
        let class = root.join("class/nvme/nvme7");
        fs::create_dir_all(&class).unwrap();
        symlink("../../../0000:01:00.0", class.join("device")).unwrap();
        let says = |input: &str, part: &str| {
            let text = hint_in(&root, input).unwrap_or_default();
            assert!(text.contains(part), "{input}: {part:?} is not in {text:?}");
        };
        for input in ["nvme7", "nvme7n1", "/dev/nvme7n1p2", "/dev/ng7n1"] {
            says(input, "`devbind bind vfio-pci 0000:01:00.0`, then type 0000:01:00.0");
        }
        says("/dev/nvme0n1", "`upcie list`");
        says("trtype=PCIe traddr=0000:02:00.0", "type 0000:02:00.0");
        says("trtype:PCIe traddr:0000:02:00.0", "type 0000:02:00.0");
        says("trtype:VFIOUSER traddr:/run/x", "type vfio-user:/run/x/cntrl");
        says("trtype=TCP traddr=1.2.3.4", "NVMe over tcp");
        fs::remove_dir_all(&root).unwrap();
        for input in ["", "sda", "nvme", "ngx"] {
            assert_eq!(hint_in(&root, input), None, "{input}");
        }
    }
}

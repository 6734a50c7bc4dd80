//! Device addresses in the form that fio's file names allow.

use upcie_nvme::{Address, Error, forms, upcie_core};

/// Parses the address in a file name. fio splits names at unescaped colons, so a PCI function may be written with dots:
/// `0000.01.00.0`, `vfio:0000.01.00.0`.
pub(crate) fn parse(name: &str) -> Result<Address, Error> {
    if name.len() == 4 && name.bytes().all(|c| c.is_ascii_hexdigit()) {
        let reason = "fio splits file names at ':': write a PCI function with dots, 0000.01.00.0";
        return Err(upcie_core::Error::address(name, reason, forms()).into());
    }
    let (scheme, function) = match name.rsplit_once(':') {
        Some((scheme, function)) => (Some(scheme), function),
        None => (None, name),
    };
    let text = match (scheme, with_colons(function)) {
        (None, Some(function)) => function,
        (Some(scheme), Some(function)) if scheme.bytes().all(|c| c.is_ascii_lowercase()) => {
            format!("{scheme}:{function}")
        }
        _ => name.to_owned(),
    };
    text.parse()
}

/// Converts `0000.01.00.0` to `0000:01:00.0`; `None` for any other text.
fn with_colons(function: &str) -> Option<String> {
    let parts: Vec<_> = function.split('.').collect();
    let [domain, bus, device, function] = parts[..] else { return None };
    let is_hex = |part: &str, len| part.len() == len && part.bytes().all(|c| c.is_ascii_hexdigit());
    (is_hex(domain, 4) && is_hex(bus, 2) && is_hex(device, 2) && is_hex(function, 1))
        .then(|| format!("{domain}:{bus}:{device}.{function}"))
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn functions_are_written_with_dots_or_with_colons() {
        for (name, address) in [
            ("0000.01.00.0", "0000:01:00.0"),
            ("0000:01:00.0", "0000:01:00.0"),
            ("vfio:0000.0a.1f.7", "vfio:0000:0a:1f.7"),
            ("vfio:0000:01:00.0", "vfio:0000:01:00.0"),
            ("iommufd:0000.01.00.0", "iommufd:0000:01:00.0"),
        ] {
            assert_eq!(parse(name).expect(name).to_string(), address);
        }
    }

    #[test]
    fn other_names_are_not_changed() {
        for name in
            ["emu", "emu:size=1G,null=true", "vfio-user:/run/0000.01.00.0", "vfio-user:/x:0000.01.00.0"]
        {
            assert_eq!(parse(name).expect(name).to_string(), name);
        }
        let error = parse("0000").unwrap_err().to_string();
        assert!(error.contains("0000.01.00.0"), "{error}");
        for name in ["job1.0.0", "/dev/nvme0n1", "0000.01.00", "0000.01.00.0.0", "nvme:0000.01.00.0"] {
            assert!(parse(name).is_err(), "{name}");
        }
    }
}

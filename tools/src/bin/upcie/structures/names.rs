//! Names and numbers of log pages, structures and features on the command line.

/// Makes a name for the command line of the specification's: lower case, words joined by dashes.
pub fn slug(title: &str) -> String {
    let words = title.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    words.map(str::to_ascii_lowercase).collect::<Vec<_>>().join("-")
}

/// Parses a number, decimal or hexadecimal (`0x02`, `02h`).
pub fn number(text: &str) -> Option<u64> {
    if let Some(digits) = text.strip_prefix("0x").or_else(|| text.strip_suffix('h')) {
        return u64::from_str_radix(digits, 16).ok();
    }
    text.parse().ok()
}

/// Parses a number for an argument.
pub fn parse<T: TryFrom<u64>>(text: &str) -> Result<T, String> {
    let number = number(text).ok_or_else(|| "not a number: use 12, 0x0c or 0Ch".to_owned())?;
    T::try_from(number).map_err(|_| "the number is too large".into())
}

/// Finds a code by its number, an alias or the specification's name, of which the beginning is enough if it is one's alone.
///
/// # Errors
/// A text for the user that lists the names.
pub fn find(
    text: &str,
    kind: &str,
    aliases: &[(&str, u8)],
    all: &[(u8, &'static str)],
) -> Result<u8, String> {
    if let Some(number) = number(text) {
        return u8::try_from(number).map_err(|_| format!("a {kind} has 8 bits"));
    }
    let wanted = text.to_ascii_lowercase();
    let exact = aliases.iter().find(|alias| alias.0 == wanted).map(|alias| alias.1);
    if let Some(code) = exact.or_else(|| all.iter().find(|item| slug(item.1) == wanted).map(|item| item.0)) {
        return Ok(code);
    }
    let mut begun: Vec<_> =
        all.iter().filter(|item| slug(item.1).starts_with(&wanted)).map(|item| item.0).collect();
    begun.dedup();
    match begun[..] {
        [code] => Ok(code),
        _ => {
            let short = aliases.iter().map(|alias| alias.0.to_owned());
            let names: Vec<_> = short.chain(all.iter().map(|item| slug(item.1))).collect();
            Err(format!("no {kind} has this name; a number works, or one of {}", names.join(", ")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_found_by_number_alias_name_and_beginning() {
        let all = [(2, "SMART / Health Information"), (3, "Firmware Slot Information"), (4, "Firmware")];
        let aliases = [("smart-log", 2)];
        for text in ["2", "0x2", "02h", "smart-log", "smart-health-information", "smart", "SMART-Log"] {
            assert_eq!(find(text, "log page", &aliases, &all), Ok(2), "{text}");
        }
        assert_eq!(find("firmware", "log page", &aliases, &all), Ok(4));
        assert_eq!(find("firmware-", "log page", &aliases, &all), Ok(3));
        for text in ["firm", "x", "256", "-1"] {
            assert!(find(text, "log page", &aliases, &all).is_err(), "{text}");
        }
    }
}

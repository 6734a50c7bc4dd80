//! Values of a feature on the command line: `field=value`, by the names that `get` prints.

use super::names;
use anyhow::{Context, bail, ensure};
use upcie_nvme::spec::FieldPlace;

/// A field and its new value.
#[derive(Debug, Clone)]
pub struct Assignment {
    name: String,
    value: String,
}

impl Assignment {
    /// Parses `field=value`; the words of the name may be joined by dashes, underscores or spaces.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (name, value) = text.split_once('=').ok_or("`field=value` is needed")?;
        Ok(Self {
            name: name.trim().to_ascii_lowercase().replace(['-', ' '], "_"),
            value: value.trim().into(),
        })
    }

    /// Puts the value into one of the parts, each with its places and bytes.
    ///
    /// # Errors
    /// There is no such field, or the value does not fit.
    pub fn put(&self, parts: &mut [(Vec<FieldPlace>, &mut [u8])]) -> anyhow::Result<()> {
        let named = |place: &&FieldPlace| place.name == self.name;
        for (places, bytes) in &mut *parts {
            let Some(place) = places.iter().find(named) else { continue };
            return self.put_at(place, bytes).with_context(|| format!("{}={}", self.name, self.value));
        }
        let known: Vec<_> = parts.iter().flat_map(|(places, _)| places).map(|place| place.name).collect();
        bail!("the feature has no field {}; it has {}", self.name, known.join(", "))
    }

    fn put_at(&self, place: &FieldPlace, bytes: &mut [u8]) -> anyhow::Result<()> {
        if place.is_text {
            let (start, len) = (place.bit as usize / 8, place.width as usize / 8);
            let part = bytes.get_mut(start..start + len).context("the value is shorter")?;
            let most = len - 1;
            ensure!(self.value.len() <= most, "the field takes {most} bytes of text");
            part.fill(0);
            part[..self.value.len()].copy_from_slice(self.value.as_bytes());
            return Ok(());
        }
        if place.is_bytes || place.width > 128 {
            let (start, len) = (place.bit as usize / 8, place.width as usize / 8);
            let digits = self.value.trim_start_matches("0x");
            let all = hex(digits).filter(|all| all.len() == len);
            let all = all.with_context(|| format!("{} hexadecimal digits are needed", len * 2))?;
            let part = bytes.get_mut(start..start + len).context("the value is shorter")?;
            part.copy_from_slice(&all);
            return Ok(());
        }
        let number = match self.value.as_str() {
            "yes" | "true" | "on" => 1,
            "no" | "false" | "off" => 0,
            text => names::number(text).context("not a number: use 12, 0x0c or 0Ch; yes or no for a flag")?,
        };
        let least = u128::from(place.zeros_based);
        let most = (1_u128.checked_shl(place.width).unwrap_or(0)).wrapping_sub(1) + least;
        ensure!(place.put(bytes, number.into()), "the field takes {least} to {most}");
        Ok(())
    }
}

/// Parses hexadecimal digits.
fn hex(digits: &str) -> Option<Vec<u8>> {
    let even = digits.len().is_multiple_of(2) && digits.is_ascii();
    let byte = |at: usize| u8::from_str_radix(digits.get(at..at + 2)?, 16).ok();
    if even { (0..digits.len()).step_by(2).map(byte).collect() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use upcie_nvme::spec::{ExtendedHostIdentifier, Feature, NamespaceAdminLabel, NumberOfQueues};

    #[test]
    fn values_go_to_their_fields() {
        let (dword, _) = NumberOfQueues::places();
        let mut bytes = [0; 4];
        let mut set = |text: &str| {
            Assignment::parse(text).map_err(anyhow::Error::msg)?.put(&mut [(dword.clone(), &mut bytes[..])])
        };
        set("submission_queues=4").unwrap();
        set("completion-queues=0x10000").unwrap();
        for (text, part) in [
            ("submission_queues=0", "1 to 65536"),
            ("submission_queues=65537", "1 to 65536"),
            ("submission_queues=x", "not a number"),
            ("queues=1", "submission_queues, completion_queues"),
            ("queues", "field=value"),
        ] {
            let error = format!("{:#}", set(text).unwrap_err());
            assert!(error.contains(part), "{text}: {error}");
        }
        assert_eq!(bytes, [3, 0, 0xff, 0xff]);
        let (_, data) = ExtendedHostIdentifier::places();
        let mut id = [0; 16];
        let text = "identifier=000102030405060708090a0b0c0d0e0f";
        Assignment::parse(text).unwrap().put(&mut [(data.clone(), &mut id[..])]).unwrap();
        assert_eq!(id[15], 15);
        let short = Assignment::parse("identifier=00").unwrap().put(&mut [(data, &mut id[..])]).unwrap_err();
        assert!(format!("{short:#}").contains("32 hexadecimal digits"), "{short:#}");
    }

    #[test]
    fn text_has_zeros_after_it() {
        let (_, data) = NamespaceAdminLabel::places();
        let mut label = [0xff; 256];
        let mut set =
            |text: &str| Assignment::parse(text).unwrap().put(&mut [(data.clone(), &mut label[..])]);
        set("label=CRM data, 4 µm").unwrap();
        let long = format!("{:#}", set(&format!("label={}", "x".repeat(256))).unwrap_err());
        assert!(long.contains("255 bytes"), "{long}");
        let text = "CRM data, 4 µm";
        assert_eq!(label[..text.len()], *text.as_bytes());
        assert!(label[text.len()..].iter().all(|&byte| byte == 0));
    }
}

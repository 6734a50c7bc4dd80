//! A property that an option gives to each namespace: `true`, or `false+true` for one after the other.

/// Reads one value for each namespace; `None` if one is neither `true` nor `false`.
pub(super) fn parse(value: &str) -> Option<Vec<bool>> {
    value.split('+').map(|text| text.parse().ok()).collect()
}

/// Returns the value of a namespace, counted from 0: the last one applies to all further ones.
pub(super) fn of(values: &[bool], index: u32) -> bool {
    values.get(index as usize).or(values.last()).copied().unwrap_or(false)
}

/// Returns the text that [`parse`] reads.
pub(super) fn text(values: &[bool]) -> String {
    values.iter().map(bool::to_string).collect::<Vec<_>>().join("+")
}

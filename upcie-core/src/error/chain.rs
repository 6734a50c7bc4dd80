//! An error and its causes, printed on one line.

use std::fmt;

/// Prints an error and its causes on one line: `emu: Read at block 9 failed: LBA Out of Range (00/80h): …`.
///
/// ```
/// use upcie_core::{Chain, device::Address};
///
/// let error = "0000:01:00.9".parse::<Address>().unwrap_err();
/// eprintln!("{}", Chain(&error));
/// ```
#[derive(Debug)]
pub struct Chain<'a>(
    /// The error.
    pub &'a (dyn std::error::Error + 'a),
);

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

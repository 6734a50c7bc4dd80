//! How a command ended, and the exit code that says so.

/// Something failed; the message is on stderr.
pub const ERROR: u8 = 1;
/// The command ran, and I/O errors or data that differs were found.
pub const FAULTS: u8 = 3;
/// Ctrl-C, SIGTERM or SIGHUP; results so far were given.
pub const INTERRUPTED: u8 = 130;

/// For `--help`.
pub const HELP: &str = "\
Exit codes:
  0    success
  1    an error: the message on stderr says what to do
  2    wrong usage
  3    it ran, but I/O errors or data that differs were found
  130  interrupted (Ctrl-C, SIGTERM, SIGHUP): results so far, and the device left clean;
       a second time it ends at once";

/// The end of a command that did not fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// All is well.
    Done,
    /// I/O errors or wrong data were found and reported.
    Faults,
    /// The user ended it.
    Interrupted,
    /// A device was given up; the rest was reported.
    Lost,
}

impl Outcome {
    /// The exit code.
    pub fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Faults => FAULTS,
            Self::Interrupted => INTERRUPTED,
            Self::Lost => ERROR,
        }
    }
}

/// Numbers in a row.
pub fn list(numbers: &[u32]) -> String {
    numbers.iter().map(u32::to_string).collect::<Vec<_>>().join(", ")
}

//! Results of a command and their exit codes.

/// Exit code of an error; the message is on stderr.
pub const ERROR: u8 = 1;
/// Exit code of a command that found I/O errors or wrong data.
pub const FAULTS: u8 = 3;
/// Exit code after Ctrl-C, SIGTERM or SIGHUP; the results up to then were printed.
pub const INTERRUPTED: u8 = 130;

/// Text for `--help`.
pub const HELP: &str = "\
Exit codes:
  0    success
  1    an error: the message on stderr says what to do
  2    wrong usage
  3    it ran, but found I/O errors or wrong data, or no such key (`kv exist`)
  130  interrupted (Ctrl-C, SIGTERM, SIGHUP): prints the results so far, shuts the device down;
       a second signal ends it at once";

/// Result of a command that did not fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Success.
    Done,
    /// The command found and reported I/O errors or wrong data, or not what it was asked for.
    Faults,
    /// The user ended the command.
    Interrupted,
    /// A device was given up; the results of the others were reported.
    Lost,
}

impl Outcome {
    /// Returns the exit code.
    pub fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Faults => FAULTS,
            Self::Interrupted => INTERRUPTED,
            Self::Lost => ERROR,
        }
    }
}

/// Joins numbers with commas.
pub fn list(numbers: &[u32]) -> String {
    numbers.iter().map(u32::to_string).collect::<Vec<_>>().join(", ")
}

//! The command line of `upcie resv`.

use crate::{guard::Consent, manage::common::Common, structures::parse};
use clap::{Args, Subcommand, ValueEnum};
use upcie_nvme::{HostId, spec::ReservationType};

/// Arguments of `upcie resv`.
#[derive(Debug, Args)]
pub struct ResvArgs {
    #[command(subcommand)]
    pub(super) verb: Verb,
}

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Register this host's key, replace it, or end the registration
    Register(RegisterArgs),
    /// Acquire the reservation, or take it from the hosts with a key
    Acquire(AcquireArgs),
    /// Release the reservation, or clear it with all registrations
    Release(ReleaseArgs),
    /// Show the reservation and the registrants
    Report(ReportArgs),
}

/// The device, its namespace, and the host that this program is.
#[derive(Debug, Args)]
pub(super) struct Which {
    #[command(flatten)]
    pub(super) common: Common,
    /// Namespace
    #[arg(
        long, short = 'n', alias = "namespace-id", value_name = "NSID", value_parser = parse::<u32>, default_value = "1"
    )]
    pub(super) namespace: u32,
    /// This host's identifier: a number up to 64 bits, or 32 hexadecimal digits for 128 bits
    #[arg(long, value_name = "ID", value_parser = parse_host)]
    pub(super) host_id: Option<HostId>,
}

#[derive(Debug, Args)]
pub(super) struct RegisterArgs {
    #[command(flatten)]
    pub(super) which: Which,
    /// The current key, to replace it or to end the registration
    #[arg(long, short = 'c', value_name = "KEY", value_parser = parse::<u64>, default_value = "0")]
    pub(super) crkey: u64,
    /// The new key, not 0
    #[arg(
        long, short = 'k', value_name = "KEY", value_parser = parse::<u64>, required_unless_present = "rrega",
        required_if_eq_any([("rrega", "register"), ("rrega", "replace")])
    )]
    pub(super) nrkey: Option<u64>,
    /// The action
    #[arg(long, short = 'r', value_enum, value_name = "ACTION", default_value = "register")]
    pub(super) rrega: RegisterAction,
    /// Set the effect of a loss of power on registrations and reservations
    #[arg(long, short = 'p', value_enum, value_name = "CHANGE", default_value = "none")]
    pub(super) cptpl: Persistence,
    /// Replace or end a registration whatever its current key is
    #[arg(long, short = 'i')]
    pub(super) iekey: bool,
    #[command(flatten)]
    pub(super) consent: Consent,
}

#[derive(Debug, Args)]
pub(super) struct AcquireArgs {
    #[command(flatten)]
    pub(super) which: Which,
    /// This host's key
    #[arg(long, short = 'c', value_name = "KEY", value_parser = parse::<u64>)]
    pub(super) crkey: u64,
    /// The key of the hosts to preempt; 0 for all others, of an all-registrants reservation
    #[arg(long, short = 'p', value_name = "KEY", value_parser = parse::<u64>, default_value = "0")]
    pub(super) prkey: u64,
    /// The type of the reservation
    #[arg(long, short = 't', value_enum, value_name = "TYPE")]
    pub(super) rtype: Type,
    /// The action
    #[arg(long, short = 'a', value_enum, value_name = "ACTION", default_value = "acquire")]
    pub(super) racqa: AcquireAction,
    #[command(flatten)]
    pub(super) consent: Consent,
}

#[derive(Debug, Args)]
pub(super) struct ReleaseArgs {
    #[command(flatten)]
    pub(super) which: Which,
    /// This host's key
    #[arg(long, short = 'c', value_name = "KEY", value_parser = parse::<u64>)]
    pub(super) crkey: u64,
    /// The type of the reservation
    #[arg(
        long,
        short = 't',
        value_enum,
        value_name = "TYPE",
        required_unless_present = "rrela",
        required_if_eq("rrela", "release")
    )]
    pub(super) rtype: Option<Type>,
    /// The action
    #[arg(long, short = 'a', value_enum, value_name = "ACTION", default_value = "release")]
    pub(super) rrela: ReleaseAction,
    #[command(flatten)]
    pub(super) consent: Consent,
}

#[derive(Debug, Args)]
pub(super) struct ReportArgs {
    #[command(flatten)]
    pub(super) which: Which,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum RegisterAction {
    #[value(alias = "0")]
    Register,
    #[value(alias = "1")]
    Unregister,
    #[value(alias = "2")]
    Replace,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Persistence {
    /// No change
    #[value(alias = "0")]
    None,
    /// They are lost
    #[value(alias = "2")]
    Clear,
    /// They persist
    #[value(alias = "3")]
    Set,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum AcquireAction {
    #[value(alias = "0")]
    Acquire,
    #[value(alias = "1")]
    Preempt,
    #[value(alias = "2")]
    PreemptAndAbort,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum ReleaseAction {
    #[value(alias = "0")]
    Release,
    #[value(alias = "1")]
    Clear,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Type {
    #[value(alias = "1")]
    WriteExclusive,
    #[value(alias = "2")]
    ExclusiveAccess,
    #[value(alias = "3")]
    WriteExclusiveRegistrantsOnly,
    #[value(alias = "4")]
    ExclusiveAccessRegistrantsOnly,
    #[value(alias = "5")]
    WriteExclusiveAllRegistrants,
    #[value(alias = "6")]
    ExclusiveAccessAllRegistrants,
}

impl From<Type> for ReservationType {
    fn from(kind: Type) -> Self {
        match kind {
            Type::WriteExclusive => Self::WRITE_EXCLUSIVE,
            Type::ExclusiveAccess => Self::EXCLUSIVE_ACCESS,
            Type::WriteExclusiveRegistrantsOnly => Self::WRITE_EXCLUSIVE_REGISTRANTS_ONLY,
            Type::ExclusiveAccessRegistrantsOnly => Self::EXCLUSIVE_ACCESS_REGISTRANTS_ONLY,
            Type::WriteExclusiveAllRegistrants => Self::WRITE_EXCLUSIVE_ALL_REGISTRANTS,
            Type::ExclusiveAccessAllRegistrants => Self::EXCLUSIVE_ACCESS_ALL_REGISTRANTS,
        }
    }
}

/// Parses a host identifier.
fn parse_host(text: &str) -> Result<HostId, String> {
    let digits: String = text.chars().filter(|&c| c != '-').collect();
    match u128::from_str_radix(&digits, 16) {
        Ok(id) if digits.len() == 32 => return Ok(HostId::Extended(id.to_be_bytes())),
        _ => {}
    }
    parse::<u64>(text)
        .map(HostId::Short)
        .map_err(|_| "a number up to 64 bits, or 32 hexadecimal digits (a UUID)".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_identifiers_have_64_or_128_bits() {
        assert_eq!(parse_host("7"), Ok(HostId::Short(7)));
        assert_eq!(parse_host("0x10"), Ok(HostId::Short(16)));
        let uuid = "00112233-4455-6677-8899-aabbccddeeff";
        let extended = parse_host(uuid).unwrap();
        assert_eq!(extended.to_string(), uuid.replace('-', ""));
        assert_eq!(parse_host(&uuid.replace('-', "")), Ok(extended));
        for wrong in ["", "host", "0x10000000000000000", "-"] {
            assert!(parse_host(wrong).is_err(), "{wrong}");
        }
    }
}

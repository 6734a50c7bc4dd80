//! Identifiers of the NVM subsystem and of its namespaces: Base, "Unique Identifier".
//!
//! All are made of one identity. NGUID and EUI64 contain an OUI, and no vendor has assigned one to this controller: theirs is
//! locally administered.

use super::Options;
use std::{
    fs,
    os::unix::ffi::OsStrExt,
    sync::atomic::{AtomicU64, Ordering},
    time::SystemTime,
};

/// The OUI, big endian. Bit 1 of its first byte says that it is locally administered.
pub(super) const OUI: [u8; 3] = [0x02, b'u', b'P'];

/// The identity of an NVM subsystem or of its namespaces, a UUID.
pub(super) type Identity = [u8; 16];

/// Returns the identity that follows from a serial number.
pub(super) fn of_serial(serial: &str) -> Identity {
    uuid(serial.as_bytes(), 0)
}

/// Returns the identities of the NVM subsystem and of its namespaces behind a server. A file has the same ones each time: its
/// namespaces by its path and the serial number, and its subsystem by a serial number that was given, or as the namespaces.
/// Memory is a new subsystem each time; the identity of its namespaces follows from a serial number that was given, and is new as
/// well without one.
pub(super) fn of_medium(options: &Options) -> (Identity, Identity) {
    let is_named = options.serial != Options::default().serial;
    if let Some(path) = &options.file {
        let path = fs::canonicalize(path).unwrap_or_else(|_| path.clone());
        let known = uuid(&[options.serial.as_bytes(), &[0], path.as_os_str().as_bytes()].concat(), 0);
        return (if is_named { of_serial(&options.serial) } else { known }, known);
    }
    let new = unique();
    (new, if is_named { of_serial(&options.serial) } else { new })
}

/// The identifiers of a namespace, big endian.
pub(super) struct Identifiers {
    pub uuid: [u8; 16],
    /// A part of the UUID, the OUI, and another part of the UUID.
    pub nguid: [u8; 16],
    /// The last 8 bytes of the NGUID: the OUI and what follows.
    pub eui64: [u8; 8],
}

impl Identifiers {
    /// Makes the identifiers of a namespace, which are the same each time. `generation` counts the namespaces that had its
    /// NSID before.
    pub fn new(namespaces: &Identity, nsid: u32, generation: u32) -> Self {
        let uuid = uuid(&[&namespaces[..], &generation.to_be_bytes()].concat(), nsid);
        let mut nguid = uuid;
        nguid[8..11].copy_from_slice(&OUI);
        let mut eui64 = [0; 8];
        eui64.copy_from_slice(&nguid[8..]);
        Self { uuid, nguid, eui64 }
    }
}

/// Makes an identity that no other NVM subsystem on this machine has.
fn unique() -> Identity {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    uuid(format!("{}-{}-{number}", std::process::id(), since.as_nanos()).as_bytes(), 0)
}

/// Makes a UUID (version 8) of bytes and a number, the same one each time.
fn uuid(of: &[u8], number: u32) -> [u8; 16] {
    // FNV-1a, 128 bits.
    let all = of.iter().copied().chain(number.to_be_bytes());
    let hash = all.fold(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d_u128, |hash, byte| {
        (hash ^ u128::from(byte)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b)
    });
    let mut id = hash.to_be_bytes();
    id[6] = id[6] & 0x0f | 0x80;
    id[8] = id[8] & 0x3f | 0x80;
    id
}

/// Returns a UUID as it is written.
pub(super) fn text(uuid: &[u8; 16]) -> String {
    let hex: String = uuid.iter().map(|byte| format!("{byte:02x}")).collect();
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}

//! Metadata and end-to-end data protection: the format of a block, the tags of a command, and protection information made and
//! checked in software (NVM, "End-to-end Data Protection").
//!
//! A block has metadata beside its data: at its end, in the same buffer (an extended logical block), or in a buffer of its
//! own. The first or the last bytes of the metadata may be protection information:
//!
//! | guard | bytes | guard | application tag | storage and reference tag together |
//! |---|---|---|---|---|
//! | 16 bits, CRC-16/T10-DIF | 8 | 2 bytes | 2 bytes | 4 bytes |
//! | 32 bits, CRC-32C | 16 | 4 bytes | 2 bytes | 10 bytes |
//! | 64 bits, CRC-64/NVME | 16 | 8 bytes | 2 bytes | 6 bytes |
//!
//! The guard is the CRC of the data and, if protection information comes last, of the metadata before it. The reference
//! tag of type 1 is the number of the block, of type 2 it counts up from a number that the host chooses, of type 3 it is
//! any. Each field is big endian. A block whose application tag is FFFFh (of type 3: and whose reference tag is all
//! ones) is not checked.
//!
//! Two ways lead to protected blocks:
//!
//! - **The controller makes and strips it** (PRACT): [`Protect::action`]. Transfers have data alone then, if the metadata is
//!   nothing but protection information.
//! - **The host makes and checks it**, from end to end: [`BlockFormat::generate`] before a write, [`BlockFormat::verify`] after
//!   a read, and [`Protect::check`] for the controller to check on the way.
//!
//! ```
//! use upcie_nvme::{Controller, Io, protection::{Checks, Protect}};
//!
//! // Blocks of 512 bytes and 8 bytes of metadata at their end: protection information of type 1.
//! let controller = Controller::open("emu:size=1M,ms=8,pi=1,extended=true")?;
//! let namespace = controller.namespace(1)?;
//! let format = *namespace.format();
//! assert_eq!((format.data_size(), format.transfer_size()), (512, 520));
//!
//! let protect = Protect::new().check(Checks::GUARD | Checks::REFERENCE_TAG).application_tag(0x1234);
//! let mut blocks = vec![7; 4 * 520];
//! format.generate(8, &mut blocks, &protect);
//! let mut buffer = controller.alloc(blocks.len())?;
//! buffer.write_at(0, &blocks);
//! namespace.run(Io::write(&namespace, 8).protect(protect), &mut buffer)?;
//!
//! namespace.run(Io::read(&namespace, 8).protect(protect), &mut buffer)?;
//! format.verify(8, &buffer.to_vec(), &protect)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod command;
mod crc;
mod error;
mod fold;
mod format;
mod software;
#[cfg(test)]
mod tests;

pub(crate) use command::Tags;
pub use command::{Checks, Protect};
pub use crc::{crc16_t10_dif, crc32c, crc64_nvme};
pub use error::ProtectionError;
pub use format::{BlockFormat, Guard, Protection, ProtectionType};

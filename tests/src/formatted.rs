//! Namespaces with a format of a test: metadata at the end of blocks or apart, with protection information or without.

use crate::{Device, on_each_device};
use std::time::Duration;
use upcie_nvme::{
    Controller, DmaBuf, Error, Io, Namespace,
    protection::{BlockFormat, Checks, Protect, ProtectionType},
    spec::{FormatNvm, ProtectionField},
};

/// The timeout of a Format NVM.
const FORMATS: Duration = Duration::from_secs(120);

/// A namespace with a format of the test; it gets its own back at the end.
#[derive(Debug)]
pub struct Formatted {
    /// The controller.
    pub controller: Controller,
    /// The namespace.
    pub namespace: Namespace,
    before: FormatNvm,
}

impl Drop for Formatted {
    fn drop(&mut self) {
        // All queue pairs of the test are closed by now.
        let back = self.controller.execute_within(&self.before, FORMATS);
        if !std::thread::panicking() {
            back.expect("the namespace gets its format back");
        }
    }
}

/// A format of the test: bytes of data and metadata, at the end of blocks or apart, type of protection, its place.
#[derive(Debug, Clone, Copy)]
pub struct Wanted {
    data: usize,
    metadata: usize,
    extended: bool,
    protection: u8,
    first: bool,
}

/// Describes a format, its fields in this order.
pub const fn wanted(data: usize, metadata: usize, extended: bool, protection: u8, first: bool) -> Wanted {
    Wanted { data, metadata, extended, protection, first }
}

/// Formats with protection information.
pub const PROTECTED: &[Wanted] = &[
    wanted(512, 8, true, 1, false),
    wanted(512, 8, false, 1, false),
    wanted(4096, 8, true, 2, false),
    wanted(512, 8, false, 3, false),
    wanted(4096, 64, true, 1, false),
    wanted(4096, 64, false, 2, true),
    wanted(512, 16, true, 2, false),
    wanted(4096, 16, false, 1, false),
];

/// Runs `test` on each device with each of `formats` that its first namespace can have.
///
/// # Panics
/// Panics if it has none of them, or is not formatted as asked.
pub fn on_each_format(formats: &[Wanted], test: impl Fn(&Device, &mut Formatted)) {
    on_each_device(|device| {
        let controller = device.open();
        let first = controller.namespaces().unwrap().remove(0);
        let id = *first.identify();
        let mut count = 0;
        for wanted in formats {
            let found = (0_u8..).zip(&id.lbaf).take(id.format_count()).find(|(_, format)| {
                format.block_size() == Some(wanted.data as u64) && usize::from(format.ms()) == wanted.metadata
            });
            let Some((index, _)) = found else { continue };
            let before = FormatNvm {
                nsid: first.nsid(),
                format: id.format_index() as u8,
                extended_metadata: id.metadata_is_extended(),
                protection: id.protection_type(),
                protection_first: id.protection_is_first(),
                ..FormatNvm::default()
            };
            let format = FormatNvm {
                format: index,
                extended_metadata: wanted.extended,
                protection: wanted.protection,
                protection_first: wanted.first,
                ..before
            };
            println!("format: {wanted:?}");
            if let Err(error) = controller.execute_within(&format, FORMATS) {
                device.lacks("block formats with metadata", &error);
                return;
            }
            let namespace = controller.namespace(first.nsid()).unwrap();
            let mut formatted = Formatted { controller: controller.clone(), namespace, before };
            formatted.namespace.check_usable().unwrap();
            let format = formatted.namespace.format();
            assert_eq!((format.data_size(), format.metadata_size()), (wanted.data, wanted.metadata));
            assert_eq!(format.is_extended(), wanted.extended);
            let protection = format.protection().map_or(0, |protection| protection.kind() as u8);
            assert_eq!(protection, wanted.protection);
            test(device, &mut formatted);
            count += 1;
        }
        assert!(count > 0 || formats.is_empty(), "no format of the test");
    });
}

/// The data and metadata of blocks in memory, by one interface for both places of metadata.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blocks {
    /// Bytes of data.
    pub data: Vec<u8>,
    /// Bytes of metadata.
    pub metadata: Vec<u8>,
}

impl Formatted {
    /// Returns the format of blocks.
    pub fn format(&self) -> BlockFormat {
        *self.namespace.format()
    }

    /// Returns the checks that the type of protection has.
    pub fn checks(&self) -> Checks {
        match self.format().protection().map(|protection| protection.kind()) {
            // Its reference tag is the host's: controllers refuse to check it.
            Some(ProtectionType::Type3) => Checks::GUARD | Checks::APPLICATION_TAG,
            _ => Checks::GUARD | Checks::APPLICATION_TAG | Checks::REFERENCE_TAG,
        }
    }

    /// Returns the protection of the tests: all checks, and an application tag.
    pub fn protect(&self) -> Protect {
        Protect::new().check(self.checks()).application_tag(0x5a01)
    }

    /// Returns `count` blocks of data that tells `version`, with metadata that is not protected yet.
    pub fn blocks(&self, count: usize, version: u8) -> Blocks {
        let byte = |at: usize| ((at * 31) >> 3) as u8 ^ version;
        Blocks {
            data: (0..count * self.format().data_size()).map(byte).collect(),
            metadata: (0..count * self.format().metadata_size()).map(|at| byte(at + 7)).collect(),
        }
    }

    /// Makes the protection information of blocks.
    pub fn generate(&self, blocks: &mut Blocks, slba: u64, protect: &Protect) {
        let format = self.format();
        if format.is_separate() {
            return format.generate_separate(slba, &blocks.data, &mut blocks.metadata, protect);
        }
        let mut all = interleaved(&format, blocks);
        format.generate(slba, &mut all, protect);
        *blocks = apart(&format, &all);
    }

    /// Checks the protection information of blocks; returns the block and the field of the first that is wrong.
    pub fn verify(
        &self,
        blocks: &Blocks,
        slba: u64,
        protect: &Protect,
    ) -> Result<(), (u64, ProtectionField)> {
        let format = self.format();
        let checked = match format.is_separate() {
            true => format.verify_separate(slba, &blocks.data, &blocks.metadata, protect),
            false => format.verify(slba, &interleaved(&format, blocks), protect),
        };
        checked.map_err(|error| (error.block, error.kind))
    }

    /// Allocates a buffer with these bytes.
    pub fn buffer(&self, bytes: &[u8]) -> DmaBuf {
        let mut buffer = self.controller.alloc(bytes.len()).unwrap();
        buffer.write_at(0, bytes);
        buffer
    }

    /// Writes blocks with their metadata.
    pub fn write(&self, blocks: &Blocks, io: Io<'_>) -> Result<(), Error> {
        if self.format().is_separate() {
            let (mut data, mut metadata) = (self.buffer(&blocks.data), self.buffer(&blocks.metadata));
            return self.namespace.run_with_metadata(io, &mut data, &mut metadata);
        }
        self.namespace.run(io, &mut self.buffer(&interleaved(&self.format(), blocks)))
    }

    /// Reads blocks with their metadata.
    pub fn read(&self, count: usize, io: Io<'_>) -> Result<Blocks, Error> {
        let format = self.format();
        let mut data = self.controller.alloc(count * format.transfer_size()).unwrap();
        if format.is_separate() {
            let mut metadata = self.controller.alloc(count * format.metadata_size()).unwrap();
            self.namespace.run_with_metadata(io, &mut data, &mut metadata)?;
            return Ok(Blocks { data: data.to_vec(), metadata: metadata.to_vec() });
        }
        self.namespace.run(io, &mut data)?;
        Ok(apart(&format, &data.to_vec()))
    }
}

/// Returns blocks as they are with metadata at the end of each.
fn interleaved(format: &BlockFormat, blocks: &Blocks) -> Vec<u8> {
    let (data, metadata) =
        (blocks.data.chunks(format.data_size()), blocks.metadata.chunks(format.metadata_size()));
    data.zip(metadata).flat_map(|(data, metadata)| [data, metadata].concat()).collect()
}

fn apart(format: &BlockFormat, all: &[u8]) -> Blocks {
    let (mut data, mut metadata) = (Vec::new(), Vec::new());
    for block in all.chunks(format.transfer_size()) {
        data.extend(&block[..format.data_size()]);
        metadata.extend(&block[format.data_size()..]);
    }
    Blocks { data, metadata }
}

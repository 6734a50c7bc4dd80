//! Copy with checks of protection information.

use super::{Extent, Refusal, Refused, Turn, common::first_words, prp::DataPointer};
use crate::{
    protection::{Guard, Protect, Protection},
    spec::{CopyDword12, CopyRange, NvmOpcode, OptionalCommands, WideCopyRange},
};
use upcie_core::dma::DmaBuf;
use zerocopy::IntoBytes;

impl<T> Turn<'_, T> {
    /// Submits a Copy like [`copy`](Self::copy) of the blocks in `sources`, each with what its blocks are checked for, and
    /// with `target` for the blocks that are written. `ranges` is memory for the command's data: at least 40 bytes for each
    /// source. Its bytes are replaced, in the format that the namespace's guard has (NVM, "Copy", "End-to-end Data Protection").
    ///
    /// The checks of the first source are those of all; each has its own tags. The [action](Protect::action) of `target` is
    /// that of the sources, too, since controllers take no other. With it, the blocks get new protection information. Without
    /// it, they keep theirs, whose reference tags are those of the old place.
    ///
    /// ```
    /// # use upcie_nvme::{Controller, Wait};
    /// use upcie_nvme::{protection::{Checks, Protect}, spec::CopyRange};
    ///
    /// let controller = Controller::open("emu:size=1M,ms=8,pi=1")?;
    /// let namespace = controller.namespace(1)?;
    /// let mut queue = controller.queue_pair().create::<u64>()?;
    /// let mut data = controller.alloc(16 * 512)?;
    /// data.fill(7);
    /// namespace.write(0, &mut data)?;
    /// // Checked on the way, and with reference tags of the new place.
    /// let sources = [(CopyRange::new(0, 16), Protect::new().check(Checks::GUARD | Checks::REFERENCE_TAG))];
    /// let ranges = controller.alloc(4096)?;
    /// queue.turn()?.copy_protected(&namespace, &sources, ranges, 512, Protect::new().action(), 0)?;
    /// # assert!(queue.wait(Wait::Poll, std::time::Duration::from_secs(10))?);
    /// queue.turn()?.next().unwrap().result()?;
    /// namespace.read(512, &mut data)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`copy`](Self::copy); [`Refusal::Unprotected`] for a namespace without protection information, [`Refusal::Length`]
    /// if there is no source, or if `ranges` has too few bytes.
    pub fn copy_protected(
        &mut self,
        namespace: &impl AsRef<Extent>,
        sources: &[(CopyRange, Protect)],
        mut ranges: DmaBuf,
        slba: u64,
        target: Protect,
        tag: T,
    ) -> Result<(), Refused<T>> {
        let extent = namespace.as_ref();
        let sources = CopySources::write(extent, sources, &mut ranges, &target);
        self.copy_sources(extent, sources, ranges, slba, target, tag)
    }

    /// Submits a Copy of sources whose ranges are in `ranges` already.
    pub(crate) fn copy_sources(
        &mut self,
        extent: &Extent,
        sources: Result<CopySources, Refusal>,
        ranges: DmaBuf,
        slba: u64,
        target: Protect,
        tag: T,
    ) -> Result<(), Refused<T>> {
        let made = self.sources_words(extent, sources, &ranges, slba, target);
        self.push_owned(made, ranges, tag)
    }

    /// Makes the words of a Copy to `slba`, and the data pointer of its source ranges.
    fn sources_words(
        &mut self,
        extent: &Extent,
        sources: Result<CopySources, Refusal>,
        ranges: &DmaBuf,
        slba: u64,
        target: Protect,
    ) -> Result<([u64; 8], DataPointer), Refusal> {
        self.has(extent, OptionalCommands::COPY)?;
        let CopySources { dword, len } = sources?;
        if let Some(reason) = extent.misplaced(slba, 1) {
            return Err(reason);
        }
        let first = first_words(NvmOpcode::COPY, extent);
        let mut words = [first, 0, 0, 0, 0, slba, dword.into_bits().into(), 0];
        target.put(&mut words, &extent.format, slba, 0);
        Ok((words, self.pointer(NvmOpcode::COPY, ranges, 0, len as usize)?))
    }
}

/// The source ranges of a Copy with checks, written to the command's buffer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CopySources {
    dword: CopyDword12,
    /// Bytes of the ranges.
    len: u32,
}

impl CopySources {
    /// Writes `sources` to the beginning of `ranges`, in the format that the namespace's guard has.
    ///
    /// # Errors
    /// [`Refusal::Unprotected`] for a namespace without protection information, [`Refusal::Length`] if there is no source, there are
    /// too many, or `ranges` has too few bytes.
    pub(crate) fn write(
        extent: &Extent,
        sources: &[(CopyRange, Protect)],
        ranges: &mut DmaBuf,
        target: &Protect,
    ) -> Result<Self, Refusal> {
        let protection = extent.format.protection().ok_or(Refusal::Unprotected)?;
        let is_wide = protection.guard() != Guard::Crc16;
        let size = if is_wide { size_of::<WideCopyRange>() } else { size_of::<CopyRange>() };
        let first = sources.first().filter(|_| sources.len() <= CopyRange::MOST);
        let Some((_, first)) = first.filter(|_| sources.len() * size <= ranges.len()) else {
            return Err(Refusal::Length);
        };
        for (index, (range, protect)) in sources.iter().enumerate() {
            let (range, tags) = expect(*range, protect, protection);
            match is_wide {
                true => ranges.write_at(index * size, WideCopyRange::new(range, tags).as_bytes()),
                false => ranges.write_at(index * size, &range.to_bytes()),
            }
        }
        let dword = CopyDword12::new().with_nr((sources.len() - 1) as u8).with_desfmt(u8::from(is_wide));
        Ok(Self { dword: first.copy_source(dword, target), len: (sources.len() * size) as u32 })
    }
}

/// Returns a range with the tags that its blocks are checked for, and all bits of the tags.
fn expect(range: CopyRange, protect: &Protect, protection: &Protection) -> (CopyRange, u128) {
    let tags = protect.tags(protection, range.slba, 0);
    let joined = tags.joined(protection);
    (range.expecting(joined as u32, tags.application, tags.mask), joined)
}

//! Copy whose source ranges the driver writes: with checks of protection information, or of other namespaces.

use super::{Extent, Refusal, Refused, Turn, common::first_words, io::Dwords, prp::DataPointer};
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

    /// Submits a Copy like [`copy`](Self::copy) of the blocks in `sources`, each in the namespace that it
    /// [names](CopyRange::of_namespace), or in `namespace` if it names none. `ranges` is memory for the command's data: at least 40
    /// bytes for each source. Its bytes are replaced, in the format that the sources and the namespace's guard have.
    ///
    /// All namespaces must have one format of blocks. The controller is opened with
    /// [`copy_between_namespaces`](crate::ControllerBuilder::copy_between_namespaces) for blocks of other ones.
    ///
    /// # Errors
    /// Those of [`copy`](Self::copy); [`Refusal::CopyFormat`] if the controller takes no blocks of other namespaces,
    /// [`Refusal::Length`] if there is no source, or if `ranges` has too few bytes.
    pub fn copy_between(
        &mut self,
        namespace: &impl AsRef<Extent>,
        sources: &[CopyRange],
        mut ranges: DmaBuf,
        slba: u64,
        tag: T,
    ) -> Result<(), Refused<T>> {
        let extent = namespace.as_ref();
        let sources = CopySources::plain(extent, sources, &mut ranges);
        self.copy_sources(extent, sources, ranges, slba, Protect::new(), tag)
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
        let made = self.sources_words(extent, sources, &ranges, slba, (target, Dwords::NONE));
        self.push_owned(made, ranges, tag)
    }

    /// Submits a Copy of sources whose ranges are at the beginning of `held`, which stays with the caller, to a placement that
    /// [`Io::placement`](super::Io::placement) describes.
    ///
    /// # Safety
    /// The obligations are those of [`submit_held`](Self::submit_held).
    ///
    /// # Errors
    /// Those of [`copy`](Self::copy), with the empty buffer.
    pub(crate) unsafe fn copy_sources_held(
        &mut self,
        extent: &Extent,
        sources: CopySources,
        held: &DmaBuf,
        (slba, placement): (u64, Option<u16>),
        tag: T,
    ) -> Result<(), Refused<T>> {
        let target = (Protect::new(), Dwords::placed(placement));
        let made = self.sources_words(extent, Ok(sources), held, slba, target);
        self.push_held(made, tag)
    }

    /// Makes the words of a Copy to `slba`, and the data pointer of its source ranges.
    fn sources_words(
        &mut self,
        extent: &Extent,
        sources: Result<CopySources, Refusal>,
        ranges: &DmaBuf,
        slba: u64,
        (target, directive): (Protect, Dwords),
    ) -> Result<([u64; 8], DataPointer), Refusal> {
        self.has(extent, OptionalCommands::COPY)?;
        let CopySources { dword, len } = sources?;
        if self.queue.live.limits().copy_formats >> dword.desfmt() & 1 == 0 {
            return Err(Refusal::CopyFormat);
        }
        if let Some(reason) = extent.misplaced(slba, 1) {
            return Err(reason);
        }
        let first = first_words(NvmOpcode::COPY, extent);
        let last = u64::from(dword.into_bits()) | directive.word();
        let mut words = [first, 0, 0, 0, 0, slba, last, 0];
        target.put(&mut words, &extent.format, slba, 0);
        Ok((words, self.pointer(NvmOpcode::COPY, ranges, 0, len as usize)?))
    }
}

/// The source ranges of a Copy, written to the command's buffer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CopySources {
    dword: CopyDword12,
    /// Bytes of the ranges.
    len: u32,
}

impl CopySources {
    /// The most bytes of a range.
    pub(crate) const SIZE: usize = size_of::<WideCopyRange>();

    /// Writes `sources`, each with what its blocks are checked for, to the beginning of `ranges`.
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
        let described = sources.iter().map(|(range, protect)| expect(*range, protect, protection));
        let Self { dword, len } = Self::describe(extent, described, ranges)?;
        let dword = sources.first().map_or(dword, |(_, first)| first.copy_source(dword, target));
        Ok(Self { dword, len })
    }

    /// Writes `sources` without checks to the beginning of `ranges`.
    ///
    /// # Errors
    /// [`Refusal::Length`] as of [`write`](Self::write).
    pub(crate) fn plain(
        extent: &Extent,
        sources: &[CopyRange],
        ranges: &mut DmaBuf,
    ) -> Result<Self, Refusal> {
        Self::describe(extent, sources.iter().map(|range| (*range, u128::from(range.eilbrt))), ranges)
    }

    /// Writes ranges, each with all bits of its tags, in the format that they and the namespace's guard have.
    fn describe(
        extent: &Extent,
        sources: impl ExactSizeIterator<Item = (CopyRange, u128)> + Clone,
        ranges: &mut DmaBuf,
    ) -> Result<Self, Refusal> {
        let count = sources.len();
        let is_wide = extent.format.protection().is_some_and(|protection| protection.guard() != Guard::Crc16);
        let size = if is_wide { Self::SIZE } else { size_of::<CopyRange>() };
        if count.wrapping_sub(1) >= CopyRange::MOST || count * size > ranges.len() {
            return Err(Refusal::Length);
        }
        let blocks = sources.clone().map(|(range, _)| u64::from(range.nlb) + 1);
        if let Some(reason) = extent.copy.refuse(blocks) {
            return Err(reason);
        }
        let names_namespaces = sources.clone().any(|(range, _)| range.nsid != 0);
        for (index, (mut range, tags)) in sources.enumerate() {
            if names_namespaces && range.nsid == 0 {
                range.nsid = extent.nsid();
            }
            match is_wide {
                true => ranges.write_at(index * size, WideCopyRange::new(range, tags).as_bytes()),
                false => ranges.write_at(index * size, &range.to_bytes()),
            }
        }
        let format = u8::from(is_wide) | u8::from(names_namespaces) << 1;
        let dword = CopyDword12::new().with_nr((count - 1) as u8).with_desfmt(format);
        Ok(Self { dword, len: (count * size) as u32 })
    }
}

/// Returns a range with the tags that its blocks are checked for, and all bits of the tags.
fn expect(range: CopyRange, protect: &Protect, protection: &Protection) -> (CopyRange, u128) {
    let tags = protect.tags(protection, range.slba, 0);
    let joined = tags.joined(protection);
    (range.expecting(joined as u32, tags.application, tags.mask), joined)
}

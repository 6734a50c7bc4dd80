//! Namespaces: blocking transfers, one at a time or in batches.

use crate::{
    batch::{Item, transfer},
    buffer::{Buffer, bytes_of},
    failure::Failure,
    keys::KeyValue,
    open::{Open, Shared},
    placement::Placement,
    protection::Protect,
    reservations::Reservations,
    zones::Zones,
};
use pyo3::prelude::*;
use std::sync::Arc;
use upcie_nvme::{
    Direction, DmaBuf, Io,
    protection::BlockFormat,
    spec::{CopyRange, Csi, DatasetRange},
};

/// The most blocks of a range of a copy.
const MOST: u32 = 1 << 16;

/// A namespace of a controller: blocks that are read and written, or keys and values.
#[pyclass(frozen, module = "upcie")]
pub struct Namespace {
    pub shared: Arc<Shared>,
    pub key: u64,
    pub nsid: u32,
    blocks: u64,
    block_size: usize,
    max_transfer: usize,
    format: BlockFormat,
    command_set: Csi,
}

impl Drop for Namespace {
    fn drop(&mut self) {
        self.shared.forget(self.key);
    }
}

impl Namespace {
    pub fn open(py: Python<'_>, shared: &Arc<Shared>, nsid: u32) -> PyResult<Self> {
        let made = shared.with(py, |open| {
            let namespace = open.controller.namespace(nsid)?;
            let command_set = namespace.command_set();
            match command_set {
                Csi::KEY_VALUE => drop(namespace.keys()?),
                _ => namespace.check_usable()?,
            }
            let (blocks, block_size) = (namespace.blocks(), namespace.block_size());
            let (max_transfer, format) = (namespace.max_transfer(), *namespace.format());
            let (shared, key) = (shared.clone(), open.keep(namespace));
            Ok(Self { shared, key, nsid, blocks, block_size, max_transfer, format, command_set })
        });
        Ok(made?)
    }

    /// Returns the bytes of `blocks` blocks in a buffer.
    fn bytes(&self, blocks: u64, protect: Option<&Protect>) -> Result<usize, Failure> {
        if self.command_set == Csi::KEY_VALUE {
            let text = "the namespace has keys and values instead of blocks: use keys()";
            return Err(Failure::Argument(text.into()));
        }
        let is_stripped = self.format.is_stripped() && protect.is_some_and(Protect::acts);
        let block = if is_stripped { self.format.data_size() } else { self.block_size };
        let bytes = usize::try_from(blocks).ok().and_then(|blocks| blocks.checked_mul(block));
        bytes.filter(|bytes| *bytes > 0).ok_or_else(|| {
            Failure::Argument(format!("{blocks} blocks: it takes at least 1, and as many as fit into memory"))
        })
    }

    /// Calls `f` with the driver's handle, without the interpreter's lock.
    pub fn with<R: Send>(
        &self,
        py: Python<'_>,
        f: impl FnOnce(&Open, &upcie_nvme::Namespace) -> Result<R, Failure> + Send,
    ) -> Result<R, Failure> {
        self.shared.with(py, |open| f(open, &open.namespace(self.key)?))
    }

    /// Returns `data` if it is a buffer of this package, or a copy of its bytes in a new one.
    pub fn source<'py>(&self, py: Python<'py>, data: &Bound<'py, PyAny>) -> PyResult<Bound<'py, Buffer>> {
        if let Ok(buffer) = data.cast::<Buffer>() {
            return Ok(buffer.clone());
        }
        let bytes = bytes_of(data)?;
        let len = bytes.item_count();
        let buffer = self.shared.with(py, |open| Buffer::new(&open.controller, len))?;
        buffer.copy_from(py, &bytes)?;
        Bound::new(py, buffer)
    }

    fn move_one(
        &self,
        py: Python<'_>,
        (direction, slba): (Direction, u64),
        buffer: &Buffer,
        metadata: Option<&Buffer>,
        (protect, placement): (Option<&Protect>, Option<u16>),
    ) -> PyResult<()> {
        let moved = self.with(py, |_, namespace| {
            let io = Io::new(direction, namespace, slba);
            let io = protect.map_or(io, |protect| io.protect(protect.native()));
            let io = placement.map_or(io, |identifier| io.placement(identifier));
            // The controller is held from here on: a buffer that is in use is so by a call that goes on after a close.
            let moved = buffer.with(|data| match metadata {
                None => Ok(namespace.run(io, data)),
                Some(metadata) => metadata.with(|metadata| namespace.run_with_metadata(io, data, metadata)),
            });
            Ok(moved???)
        });
        Ok(moved?)
    }

    fn move_many(
        &self,
        py: Python<'_>,
        how: (Direction, Option<u16>),
        places: Vec<u64>,
        buffers: &[Bound<'_, Buffer>],
    ) -> PyResult<()> {
        let buffers: Vec<&Buffer> = buffers.iter().map(Bound::get).collect();
        let moved = self.with(py, |open, namespace| {
            let mut items = Vec::with_capacity(places.len());
            let mut taken = Ok(());
            for (slba, buffer) in places.into_iter().zip(&buffers) {
                match buffer.take() {
                    Ok(data) => items.push(Item { slba, data: Some(data) }),
                    Err(failure) => {
                        taken = Err(failure);
                        break;
                    }
                }
            }
            let moved = taken.and_then(|()| transfer(open, namespace, how, &mut items));
            for (item, buffer) in items.into_iter().zip(&buffers) {
                buffer.put(item.data.unwrap_or_default());
            }
            moved
        });
        Ok(moved?)
    }
}

#[pymethods]
impl Namespace {
    /// Returns the namespace's id.
    #[getter]
    fn nsid(&self) -> u32 {
        self.nsid
    }

    /// Returns the size in blocks.
    #[getter]
    fn blocks(&self) -> u64 {
        self.blocks
    }

    /// Returns the bytes of a block.
    #[getter]
    fn block_size(&self) -> usize {
        self.block_size
    }

    /// Returns the most bytes of one command of a batch.
    #[getter]
    fn max_transfer(&self) -> usize {
        self.max_transfer
    }

    /// Returns the command set: `"NVM"`, `"Zoned Namespace"` or `"Key Value"`.
    #[getter]
    fn command_set(&self) -> String {
        self.command_set.name().map_or_else(|| self.command_set.to_string(), str::to_owned)
    }

    /// Returns the bytes of metadata of a block.
    #[getter]
    fn metadata_size(&self) -> usize {
        self.format.metadata_size()
    }

    /// Tells whether the metadata has a buffer of its own; otherwise it is at the end of each block.
    #[getter]
    fn separate_metadata(&self) -> bool {
        self.format.is_separate()
    }

    /// Returns the type of the protection information, 1 to 3; `None` if the blocks have none.
    #[getter]
    fn protection_type(&self) -> Option<u8> {
        self.format.protection().map(|protection| protection.kind() as u8)
    }

    /// Returns the zones.
    fn zones(slf: Bound<'_, Self>) -> PyResult<Zones> {
        Zones::open(slf.py(), slf.unbind())
    }

    /// Returns the keys and values.
    fn keys(slf: Bound<'_, Self>) -> PyResult<KeyValue> {
        KeyValue::open(slf.py(), slf.unbind())
    }

    /// Returns the reservations.
    fn reservations(slf: Bound<'_, Self>) -> PyResult<Reservations> {
        Reservations::open(slf.py(), slf.unbind())
    }

    /// Returns the placement handles, if the namespace has flexible data placement.
    fn placement(slf: Bound<'_, Self>) -> PyResult<Placement> {
        Placement::open(slf.py(), slf.unbind())
    }

    /// Reads blocks into a new buffer.
    #[pyo3(signature = (slba, blocks = 1, *, protect = None))]
    fn read(
        &self,
        py: Python<'_>,
        slba: u64,
        blocks: u64,
        protect: Option<Bound<'_, Protect>>,
    ) -> PyResult<Buffer> {
        let protect = protect.as_ref().map(Bound::get);
        let len = self.bytes(blocks, protect)?;
        let buffer = self.shared.with(py, |open| Buffer::new(&open.controller, len))?;
        self.move_one(py, (Direction::Read, slba), &buffer, None, (protect, None))?;
        Ok(buffer)
    }

    /// Reads blocks into all of a buffer, and their metadata into all of another one.
    #[pyo3(signature = (slba, buffer, *, metadata = None, protect = None))]
    fn read_into(
        &self,
        py: Python<'_>,
        slba: u64,
        buffer: &Bound<'_, Buffer>,
        metadata: Option<Bound<'_, Buffer>>,
        protect: Option<Bound<'_, Protect>>,
    ) -> PyResult<()> {
        let (metadata, protect) = (metadata.as_ref().map(Bound::get), protect.as_ref().map(Bound::get));
        self.move_one(py, (Direction::Read, slba), buffer.get(), metadata, (protect, None))
    }

    /// Writes a buffer, without a copy, or the bytes of another object, with one; and their metadata likewise. `placement` is
    /// the placement identifier of the reclaim unit that they go to.
    #[pyo3(signature = (slba, data, *, metadata = None, protect = None, placement = None))]
    fn write(
        &self,
        py: Python<'_>,
        slba: u64,
        data: &Bound<'_, PyAny>,
        metadata: Option<Bound<'_, PyAny>>,
        protect: Option<Bound<'_, Protect>>,
        placement: Option<u16>,
    ) -> PyResult<()> {
        let buffer = self.source(py, data)?;
        let metadata = metadata.map(|metadata| self.source(py, &metadata)).transpose()?;
        let (metadata, protect) = (metadata.as_ref().map(Bound::get), protect.as_ref().map(Bound::get));
        self.move_one(py, (Direction::Write, slba), buffer.get(), metadata, (protect, placement))
    }

    /// Reads many places, each a pair of the first block and the number of blocks, with many commands at once.
    fn read_many<'py>(&self, py: Python<'py>, places: Vec<(u64, u64)>) -> PyResult<Vec<Bound<'py, Buffer>>> {
        let mut buffers = Vec::with_capacity(places.len());
        for (_, blocks) in &places {
            let len = self.bytes(*blocks, None)?;
            let buffer = self.shared.with(py, |open| Buffer::new(&open.controller, len))?;
            buffers.push(Bound::new(py, buffer)?);
        }
        let how = (Direction::Read, None);
        self.move_many(py, how, places.into_iter().map(|(slba, _)| slba).collect(), &buffers)?;
        Ok(buffers)
    }

    /// Writes many pieces, each a pair of the first block and the data, with many commands at once.
    #[pyo3(signature = (pieces, *, placement = None))]
    fn write_many<'py>(
        &self,
        py: Python<'py>,
        pieces: Vec<(u64, Bound<'py, PyAny>)>,
        placement: Option<u16>,
    ) -> PyResult<()> {
        let buffers: Vec<_> =
            pieces.iter().map(|(_, data)| self.source(py, data)).collect::<PyResult<_>>()?;
        let how = (Direction::Write, placement);
        self.move_many(py, how, pieces.into_iter().map(|(slba, _)| slba).collect(), &buffers)
    }

    /// Makes all completed writes durable.
    fn flush(&self, py: Python<'_>) -> PyResult<()> {
        Ok(self.with(py, |_, namespace| Ok(namespace.flush()?))?)
    }

    /// Writes zeros.
    fn write_zeroes(&self, py: Python<'_>, slba: u64, blocks: u64) -> PyResult<()> {
        Ok(self.with(py, |_, namespace| Ok(namespace.write_zeroes(slba, blocks)?))?)
    }

    /// Tells the controller that the contents of blocks are no longer needed.
    fn deallocate(&self, py: Python<'_>, slba: u64, blocks: u32) -> PyResult<()> {
        Ok(self.with(py, |_, namespace| Ok(namespace.deallocate(&[DatasetRange::new(slba, blocks)])?))?)
    }

    /// Tells whether blocks have this data; the controller compares it.
    fn compare(&self, py: Python<'_>, slba: u64, data: &Bound<'_, PyAny>) -> PyResult<bool> {
        let buffer = self.source(py, data)?;
        let buffer = buffer.get();
        let same = self.with(py, |_, namespace| Ok(buffer.with(|data| namespace.compare(slba, data))??));
        Ok(same?)
    }

    /// Writes `new` if the blocks have the data `expected`, which is as long; nothing comes in between. Tells whether it was written.
    fn compare_and_write(
        &self,
        py: Python<'_>,
        slba: u64,
        expected: &Bound<'_, PyAny>,
        new: &Bound<'_, PyAny>,
    ) -> PyResult<bool> {
        let buffers = [self.source(py, expected)?, self.source(py, new)?];
        let buffers = buffers.each_ref().map(Bound::get);
        let written = self.with(py, |_, namespace| {
            let write = |expected: &mut DmaBuf| {
                buffers[1].with(|new| namespace.compare_and_write(slba, expected, new))
            };
            Ok(buffers[0].with(write)???)
        });
        Ok(written?)
    }

    /// Lets the controller read blocks without a transfer, and check their protection information.
    #[pyo3(signature = (slba, blocks = 1, *, protect = None))]
    fn verify(
        &self,
        py: Python<'_>,
        slba: u64,
        blocks: u64,
        protect: Option<Bound<'_, Protect>>,
    ) -> PyResult<()> {
        let protect = protect.as_ref().map(|protect| protect.get().native());
        Ok(self.with(py, |_, namespace| Ok(namespace.verify(slba, blocks, protect)?))?)
    }

    /// Makes blocks unreadable until they are written.
    #[pyo3(signature = (slba, blocks = 1))]
    fn write_uncorrectable(&self, py: Python<'_>, slba: u64, blocks: u64) -> PyResult<()> {
        Ok(self.with(py, |_, namespace| Ok(namespace.write_uncorrectable(slba, blocks)?))?)
    }

    /// Copies ranges, each a pair of the first block and the number of blocks, to the blocks from `slba` on, within the
    /// controller.
    #[pyo3(signature = (ranges, slba, *, placement = None))]
    fn copy(
        &self,
        py: Python<'_>,
        ranges: Vec<(u64, u32)>,
        slba: u64,
        placement: Option<u16>,
    ) -> PyResult<()> {
        if let Some((_, blocks)) = ranges.iter().find(|(_, blocks)| !(1..=MOST).contains(blocks)) {
            let text = format!("a range of {blocks} blocks: it takes 1 to {MOST}");
            return Err(Failure::Argument(text).into());
        }
        let ranges: Vec<_> = ranges.iter().map(|(slba, blocks)| CopyRange::new(*slba, *blocks)).collect();
        Ok(self.with(py, |_, namespace| match placement {
            None => Ok(namespace.copy(&ranges, slba)?),
            Some(identifier) => Ok(namespace.copy_placed(&ranges, slba, identifier)?),
        })?)
    }

    fn __repr__(&self) -> String {
        let name = self.shared.name();
        format!(
            "<upcie.Namespace {} of {name}: {} blocks of {} bytes>",
            self.nsid, self.blocks, self.block_size
        )
    }
}

//! Namespaces: blocking transfers, one at a time or in batches.

use crate::{
    batch::{Item, transfer},
    buffer::Buffer,
    failure::Failure,
    open::{Open, Shared},
};
use pyo3::{buffer::PyBuffer, prelude::*, types::PyMemoryView};
use std::sync::Arc;
use upcie_nvme::{Direction, spec::DatasetRange};

/// A namespace of a controller: blocks that are read and written.
#[pyclass(frozen, module = "upcie")]
pub struct Namespace {
    pub shared: Arc<Shared>,
    pub key: u64,
    nsid: u32,
    blocks: u64,
    block_size: usize,
    max_transfer: usize,
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
            namespace.check_usable()?;
            let (blocks, block_size) = (namespace.blocks(), namespace.block_size());
            let max_transfer = namespace.max_transfer();
            let (shared, key) = (shared.clone(), open.keep(namespace));
            Ok(Self { shared, key, nsid, blocks, block_size, max_transfer })
        });
        Ok(made?)
    }

    /// Returns the bytes of `blocks` blocks.
    fn bytes(&self, blocks: u64) -> Result<usize, Failure> {
        let bytes = usize::try_from(blocks).ok().and_then(|blocks| blocks.checked_mul(self.block_size));
        bytes.filter(|bytes| *bytes > 0).ok_or_else(|| {
            Failure::Argument(format!("{blocks} blocks: it takes at least 1, and as many as fit into memory"))
        })
    }

    /// Calls `f` with the driver's handle, without the interpreter's lock.
    fn with<R: Send>(
        &self,
        py: Python<'_>,
        f: impl FnOnce(&Open, &upcie_nvme::Namespace) -> Result<R, Failure> + Send,
    ) -> Result<R, Failure> {
        self.shared.with(py, |open| f(open, &open.namespace(self.key)?))
    }

    /// Returns `data` if it is a buffer of this package, or a copy of its bytes in a new one.
    fn source<'py>(&self, py: Python<'py>, data: &Bound<'py, PyAny>) -> PyResult<Bound<'py, Buffer>> {
        if let Ok(buffer) = data.cast::<Buffer>() {
            return Ok(buffer.clone());
        }
        let bytes = PyMemoryView::from(data)?.call_method1("cast", ("B",))?;
        let bytes = PyBuffer::<u8>::get(&bytes)?;
        let len = bytes.item_count();
        let buffer = self.shared.with(py, |open| Buffer::new(&open.controller, len))?;
        buffer.copy_from(py, &bytes)?;
        Bound::new(py, buffer)
    }

    fn move_one(&self, py: Python<'_>, direction: Direction, slba: u64, buffer: &Buffer) -> PyResult<()> {
        let moved = self.with(py, |_, namespace| {
            // The controller is held from here on: a buffer that is in use is so by a call that goes on after a close.
            let mut data = buffer.take()?;
            let moved = match direction {
                Direction::Read => namespace.read(slba, &mut data),
                Direction::Write => namespace.write(slba, &mut data),
            };
            buffer.put(data);
            Ok(moved?)
        });
        Ok(moved?)
    }

    fn move_many(
        &self,
        py: Python<'_>,
        direction: Direction,
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
            let moved = taken.and_then(|()| transfer(open, namespace, direction, &mut items));
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

    /// Reads blocks into a new buffer.
    #[pyo3(signature = (slba, blocks = 1))]
    fn read(&self, py: Python<'_>, slba: u64, blocks: u64) -> PyResult<Buffer> {
        let len = self.bytes(blocks)?;
        let buffer = self.shared.with(py, |open| Buffer::new(&open.controller, len))?;
        self.move_one(py, Direction::Read, slba, &buffer)?;
        Ok(buffer)
    }

    /// Reads blocks into all of a buffer.
    fn read_into(&self, py: Python<'_>, slba: u64, buffer: &Bound<'_, Buffer>) -> PyResult<()> {
        self.move_one(py, Direction::Read, slba, buffer.get())
    }

    /// Writes a buffer, without a copy, or the bytes of another object, with one.
    fn write(&self, py: Python<'_>, slba: u64, data: &Bound<'_, PyAny>) -> PyResult<()> {
        let buffer = self.source(py, data)?;
        self.move_one(py, Direction::Write, slba, buffer.get())
    }

    /// Reads many places, each a pair of the first block and the number of blocks, with many commands at once.
    fn read_many<'py>(&self, py: Python<'py>, places: Vec<(u64, u64)>) -> PyResult<Vec<Bound<'py, Buffer>>> {
        let mut buffers = Vec::with_capacity(places.len());
        for (_, blocks) in &places {
            let len = self.bytes(*blocks)?;
            let buffer = self.shared.with(py, |open| Buffer::new(&open.controller, len))?;
            buffers.push(Bound::new(py, buffer)?);
        }
        self.move_many(py, Direction::Read, places.into_iter().map(|(slba, _)| slba).collect(), &buffers)?;
        Ok(buffers)
    }

    /// Writes many pieces, each a pair of the first block and the data, with many commands at once.
    fn write_many<'py>(&self, py: Python<'py>, pieces: Vec<(u64, Bound<'py, PyAny>)>) -> PyResult<()> {
        let buffers: Vec<_> =
            pieces.iter().map(|(_, data)| self.source(py, data)).collect::<PyResult<_>>()?;
        self.move_many(py, Direction::Write, pieces.into_iter().map(|(slba, _)| slba).collect(), &buffers)
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

    fn __repr__(&self) -> String {
        let name = self.shared.name();
        format!(
            "<upcie.Namespace {} of {name}: {} blocks of {} bytes>",
            self.nsid, self.blocks, self.block_size
        )
    }
}

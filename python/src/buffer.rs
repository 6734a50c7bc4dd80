//! DMA memory as a Python object with the buffer protocol.

use crate::{
    failure::Failure,
    open::{allocate, check_owner, lock},
};
use pyo3::{
    buffer::PyBuffer,
    exceptions::{PyBufferError, PyTypeError},
    ffi,
    prelude::*,
    types::{PyBytes, PyDict, PyMemoryView},
};
use std::{
    ffi::c_int,
    mem, ptr,
    sync::{Mutex, MutexGuard},
};
use upcie_nvme::{Controller, DmaBuf, upcie_core::process::Owner};

/// Returns the bytes of an object with the buffer protocol.
///
/// # Errors
/// It has none or is not contiguous; or it holds Python objects, whose bytes are addresses in this process.
pub fn bytes_of(data: &Bound<'_, PyAny>) -> PyResult<PyBuffer<u8>> {
    let view = PyMemoryView::from(data)?;
    let format: String = view.getattr("format")?.extract()?;
    if format.trim_start_matches('@') == "O" {
        return Err(PyTypeError::new_err(
            "an array of Python objects: it holds their addresses, and no data",
        ));
    }
    PyBuffer::get(&view.call_method1("cast", ("B",))?)
}

/// The bytes of a buffer.
enum Data {
    Here(DmaBuf),
    /// A call uses them.
    Busy,
    /// The controller has not given them back after a timeout.
    Kept,
    Freed,
}

struct State {
    data: Data,
    /// Keeps the memory mapped and in use, whatever becomes of `data`: until the buffer is freed, which views prevent.
    pin: Option<DmaBuf>,
    /// Views of the buffer protocol.
    views: usize,
}

/// Memory that a controller reads and writes, as a sequence of bytes with the buffer protocol: `memoryview(buffer)` and
/// `numpy.frombuffer(buffer)` are views of it, without a copy.
#[pyclass(frozen, module = "upcie")]
pub struct Buffer {
    /// The address of the controller that it was allocated for.
    device: String,
    /// The process that allocated it. A forked child does not wait for the lock below.
    owner: Owner,
    state: Mutex<State>,
    /// The address of the first byte, valid as long as `pin` is there.
    start: usize,
    len: usize,
}

impl Buffer {
    /// Allocates `len` bytes, zeroed.
    pub fn new(controller: &Controller, len: usize) -> Result<Self, Failure> {
        let (data, pin) = allocate(controller, len)?;
        let start = data.as_ptr().expose_provenance();
        let state = Mutex::new(State { data: Data::Here(data), pin: Some(pin), views: 0 });
        Ok(Self { device: controller.name().to_owned(), owner: Owner::current(), state, start, len })
    }

    /// Locks the state; an error in a forked child.
    fn state(&self) -> Result<MutexGuard<'_, State>, Failure> {
        check_owner(self.owner, &self.device, "using a buffer")?;
        Ok(lock(&self.state))
    }

    /// Takes the bytes for a call; [`put`](Self::put) gives them back.
    pub fn take(&self) -> Result<DmaBuf, Failure> {
        let mut state = self.state()?;
        match mem::replace(&mut state.data, Data::Busy) {
            Data::Here(data) => Ok(data),
            Data::Busy => Err(Failure::Busy("the buffer is in use by another call".into())),
            Data::Kept => {
                state.data = Data::Kept;
                Err(Failure::Closed(
                    "the controller has kept the buffer after a timeout: use another one".into(),
                ))
            }
            Data::Freed => {
                state.data = Data::Freed;
                Err(Failure::Closed("the buffer was freed".into()))
            }
        }
    }

    /// Gives the bytes of a call back; empty, if the controller has kept them.
    pub fn put(&self, data: DmaBuf) {
        let data = if data.is_empty() { Data::Kept } else { Data::Here(data) };
        lock(&self.state).data = data;
    }

    /// Calls `f` with the bytes, which it leaves empty if the controller has kept them.
    pub fn with<R>(&self, f: impl FnOnce(&mut DmaBuf) -> R) -> Result<R, Failure> {
        let mut data = self.take()?;
        let result = f(&mut data);
        self.put(data);
        Ok(result)
    }

    /// Fills the buffer from an object with the buffer protocol, whose bytes are as many.
    pub fn copy_from(&self, py: Python<'_>, bytes: &PyBuffer<u8>) -> PyResult<()> {
        let mut data = self.take()?;
        let copied = match data.as_mut_slice() {
            Some(slice) => bytes.copy_to_slice(py, slice),
            None => bytes.to_vec(py).map(|bytes| data.write_at(0, &bytes)),
        };
        self.put(data);
        copied
    }
}

#[pymethods]
impl Buffer {
    fn __len__(&self) -> usize {
        self.len
    }

    /// Tells whether the memory was freed.
    #[getter]
    fn freed(&self) -> PyResult<bool> {
        Ok(matches!(self.state()?.data, Data::Freed))
    }

    /// Sets every byte.
    fn fill(&self, value: u8) -> PyResult<()> {
        Ok(self.with(|data| data.fill(value))?)
    }

    /// Copies the bytes.
    fn tobytes<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        let bytes = self.with(|data| data.to_vec())?;
        Ok(PyBytes::new(py, &bytes))
    }

    /// Makes a numpy array of the bytes, without a copy.
    #[pyo3(signature = (dtype = None))]
    fn array<'py>(slf: Bound<'py, Self>, dtype: Option<Bound<'py, PyAny>>) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        let options = PyDict::new(py);
        match dtype {
            Some(dtype) => options.set_item("dtype", dtype)?,
            None => options.set_item("dtype", "uint8")?,
        }
        py.import("numpy")?.getattr("frombuffer")?.call((slf,), Some(&options))
    }

    /// Frees the memory now. A buffer that is not freed is freed with its last reference. In a forked child it stays the
    /// parent's.
    fn free(&self, py: Python<'_>) -> PyResult<()> {
        let Ok(mut state) = self.state() else { return Ok(()) };
        if state.views > 0 {
            let text = format!("{} views of the buffer exist: delete them first", state.views);
            return Err(PyBufferError::new_err(text));
        }
        if matches!(state.data, Data::Busy) {
            return Err(Failure::Busy("the buffer is in use by another call".into()).into());
        }
        let data = mem::replace(&mut state.data, Data::Freed);
        let pin = state.pin.take();
        drop(state);
        py.detach(|| drop((data, pin)));
        Ok(())
    }

    fn __enter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __exit__(
        &self,
        py: Python<'_>,
        _kind: &Bound<'_, PyAny>,
        _error: &Bound<'_, PyAny>,
        _trace: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        self.free(py)
    }

    fn __repr__(&self) -> String {
        let what = match self.state().as_ref().map(|state| &state.data) {
            Ok(Data::Here(_)) => "",
            Ok(Data::Busy) => ", in use",
            Ok(Data::Kept) => ", kept by the controller",
            Ok(Data::Freed) => ", freed",
            Err(_) => ", of another process",
        };
        format!("<upcie.Buffer of {} bytes{what}>", self.len)
    }

    /// Makes a view.
    ///
    /// # Safety
    /// Only the interpreter calls it, with a `Py_buffer` to fill.
    unsafe fn __getbuffer__(slf: Bound<'_, Self>, view: *mut ffi::Py_buffer, flags: c_int) -> PyResult<()> {
        let this = slf.get();
        let mut state = this.state()?;
        if state.pin.is_none() {
            return Err(Failure::Closed("the buffer was freed".into()).into());
        }
        let start = ptr::with_exposed_provenance_mut::<u8>(this.start);
        let len = ffi::Py_ssize_t::try_from(this.len)?;
        // SAFETY: `view` is the interpreter's, and `start` is the first of `len` bytes that stay mapped and allocated while `pin`
        // is there. The view refers to this object, so it lives as long, and `free` refuses while views are counted.
        let failed = unsafe { ffi::PyBuffer_FillInfo(view, slf.as_ptr(), start.cast(), len, 0, flags) };
        if failed != 0 {
            drop(state);
            return Err(PyErr::fetch(slf.py()));
        }
        state.views += 1;
        Ok(())
    }

    /// Notes the end of a view.
    ///
    /// # Safety
    /// Only the interpreter calls it, once for each view.
    unsafe fn __releasebuffer__(&self, _view: *mut ffi::Py_buffer) {
        // In a forked child the views are the parent's.
        if let Ok(mut state) = self.state() {
            state.views = state.views.saturating_sub(1);
        }
    }
}

//! Keys and values of a namespace.

use crate::{
    buffer::{Buffer, bytes_of},
    failure::Failure,
    namespace::Namespace,
};
use pyo3::{
    exceptions::PyTypeError,
    prelude::*,
    types::{PyBytes, PyString},
};
use upcie_nvme::spec::{Key, RetrieveOptions, StoreOptions};

/// The keys and values of a namespace of the key value command set. A key is `bytes` of a length from 1 to 16, or such a `str`.
#[pyclass(frozen, module = "upcie")]
pub struct KeyValue {
    namespace: Py<Namespace>,
    #[pyo3(get)]
    max_key: usize,
    #[pyo3(get)]
    max_value: usize,
    /// The bytes that the namespace has for keys and values.
    #[pyo3(get)]
    size: u64,
}

/// Returns the key of a `str` or `bytes` object.
fn key_of(key: &Bound<'_, PyAny>) -> PyResult<Key> {
    let made = if let Ok(text) = key.cast::<PyString>() {
        Key::new(text.to_str()?.as_bytes())
    } else if let Ok(bytes) = key.cast::<PyBytes>() {
        Key::new(bytes.as_bytes())
    } else {
        return Err(PyTypeError::new_err("a key is bytes or str"));
    };
    Ok(made.map_err(|error| Failure::Argument(error.to_string()))?)
}

impl KeyValue {
    pub fn open(py: Python<'_>, namespace: Py<Namespace>) -> PyResult<Self> {
        let made = namespace.get().with(py, |_, native| {
            let keys = native.keys()?;
            Ok((keys.max_key(), keys.max_value(), keys.size()))
        });
        let (max_key, max_value, size) = made?;
        Ok(Self { namespace, max_key, max_value, size })
    }

    fn with<R: Send>(
        &self,
        py: Python<'_>,
        f: impl FnOnce(&upcie_nvme::KeyValue) -> Result<R, Failure> + Send,
    ) -> PyResult<R> {
        Ok(self.namespace.get().with(py, |_, native| f(&native.keys()?))?)
    }
}

#[pymethods]
impl KeyValue {
    /// Stores a value: a buffer without a copy, or the bytes of another object.
    #[pyo3(signature = (key, value, *, must_exist = false, must_not_exist = false))]
    fn store(
        &self,
        py: Python<'_>,
        key: &Bound<'_, PyAny>,
        value: &Bound<'_, PyAny>,
        must_exist: bool,
        must_not_exist: bool,
    ) -> PyResult<()> {
        let key = key_of(key)?;
        let mut options = StoreOptions::empty();
        options.set(StoreOptions::MUST_EXIST, must_exist);
        options.set(StoreOptions::MUST_NOT_EXIST, must_not_exist);
        if let Ok(buffer) = value.cast::<Buffer>() {
            let buffer = buffer.get();
            return self.with(py, |keys| {
                let stored = buffer.with(|data| {
                    let all = 0..data.len();
                    keys.store_with(key, data, all, options)
                });
                Ok(stored??)
            });
        }
        let bytes = bytes_of(value)?.to_vec(py)?;
        self.with(py, |keys| Ok(keys.store_bytes(key, &bytes, options)?))
    }

    /// Retrieves the value of a key, by a copy.
    fn retrieve<'py>(&self, py: Python<'py>, key: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyBytes>> {
        let key = key_of(key)?;
        let value = self.with(py, |keys| Ok(keys.retrieve_bytes(key)?))?;
        Ok(PyBytes::new(py, &value))
    }

    /// Retrieves as much of a value as a buffer has room for, without a copy; returns the length of the whole value.
    fn retrieve_into(
        &self,
        py: Python<'_>,
        key: &Bound<'_, PyAny>,
        buffer: &Bound<'_, Buffer>,
    ) -> PyResult<usize> {
        let (key, buffer) = (key_of(key)?, buffer.get());
        self.with(py, |keys| {
            let len = buffer.with(|data| {
                let all = 0..data.len();
                keys.retrieve_with(key, data, all, RetrieveOptions::empty())
            });
            Ok(len??)
        })
    }

    /// Deletes a key and its value.
    fn delete(&self, py: Python<'_>, key: &Bound<'_, PyAny>) -> PyResult<()> {
        let key = key_of(key)?;
        self.with(py, |keys| Ok(keys.delete(key)?))
    }

    /// Tells whether there is a key.
    fn exists(&self, py: Python<'_>, key: &Bound<'_, PyAny>) -> PyResult<bool> {
        let key = key_of(key)?;
        self.with(py, |keys| Ok(keys.exists(key)?))
    }

    /// Lists at most so many keys, in an order of the controller's choice, from `start` on if it exists.
    #[pyo3(signature = (start = None, most = None))]
    fn list<'py>(
        &self,
        py: Python<'py>,
        start: Option<Bound<'py, PyAny>>,
        most: Option<usize>,
    ) -> PyResult<Vec<Bound<'py, PyBytes>>> {
        let start = start.as_ref().map(key_of).transpose()?;
        let keys = self.with(py, |keys| Ok(keys.list(start, most.unwrap_or(usize::MAX))?))?;
        Ok(keys.iter().map(|key| PyBytes::new(py, key.as_bytes())).collect())
    }

    /// Makes all completed stores and deletions durable.
    fn flush(&self, py: Python<'_>) -> PyResult<()> {
        self.with(py, |keys| Ok(keys.flush()?))
    }

    fn __repr__(&self) -> String {
        format!(
            "<upcie.KeyValue of {} bytes: keys of up to {} bytes, values of up to {}>",
            self.size, self.max_key, self.max_value
        )
    }
}

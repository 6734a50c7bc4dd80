//! The protection of transfers.

use pyo3::prelude::*;
use upcie_nvme::protection::{Checks, Protect as Native};

/// The controller's treatment of the protection information of a transfer's blocks, and the tags. `prinfo` is a sum: 8, the controller
/// makes what it writes, and strips what it reads; 4, 2 and 1, it checks guard, application tag and reference tag.
#[pyclass(frozen, module = "upcie")]
#[derive(Debug)]
pub struct Protect {
    #[pyo3(get)]
    prinfo: u8,
    #[pyo3(get)]
    app_tag: u16,
    #[pyo3(get)]
    app_tag_mask: u16,
    #[pyo3(get)]
    ref_tag: Option<u64>,
}

#[pymethods]
impl Protect {
    #[new]
    #[pyo3(signature = (prinfo, *, app_tag = 0, app_tag_mask = 0xffff, ref_tag = None))]
    fn new(prinfo: u8, app_tag: u16, app_tag_mask: u16, ref_tag: Option<u64>) -> PyResult<Self> {
        if prinfo > 15 {
            let text = format!("prinfo={prinfo}: it takes 0 to 15, the sum of 8, 4, 2 and 1");
            return Err(crate::failure::Failure::Argument(text).into());
        }
        Ok(Self { prinfo, app_tag, app_tag_mask, ref_tag })
    }

    fn __repr__(&self) -> String {
        let Self { prinfo, app_tag, app_tag_mask, .. } = self;
        let reference = self.ref_tag.map_or_else(|| "None".into(), |tag| format!("{tag:#x}"));
        format!(
            "upcie.Protect({prinfo}, app_tag={app_tag:#x}, app_tag_mask={app_tag_mask:#x}, ref_tag={reference})"
        )
    }
}

impl Protect {
    /// Tells whether the controller makes and strips the protection information.
    pub fn acts(&self) -> bool {
        self.prinfo & 8 != 0
    }

    pub fn native(&self) -> Native {
        let checks = [(4, Checks::GUARD), (2, Checks::APPLICATION_TAG), (1, Checks::REFERENCE_TAG)];
        let checks = checks.into_iter().filter(|(bit, _)| self.prinfo & bit != 0).map(|(_, check)| check);
        let mut made = Native::new()
            .check(checks.collect())
            .application_tag(self.app_tag)
            .application_mask(self.app_tag_mask);
        if let Some(tag) = self.ref_tag {
            made = made.reference_tag(tag);
        }
        if self.acts() { made.action() } else { made }
    }
}

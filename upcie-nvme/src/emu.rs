//! stub until merged
use crate::{Error, Result};
use std::{str::FromStr, sync::Arc};
use upcie_core::transport::Device;
/// stub
#[derive(Debug)]
pub struct Options;
impl FromStr for Options {
    type Err = Error;
    fn from_str(_: &str) -> Result<Self> {
        Ok(Self)
    }
}
/// stub
pub fn spawn(_: &Options) -> Result<Arc<dyn Device>> {
    Err(Error::Emulator("not there yet".into()))
}

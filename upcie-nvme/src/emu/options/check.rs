//! Options that are not compatible with one another.

use super::{
    super::{Error, units::Bytes},
    Options, access,
};

impl Options {
    /// Checks that the options are compatible, as [`Emulator::new`](crate::emu::Emulator::new) does.
    ///
    /// # Errors
    /// [`Error::Option`]: names the option that is not compatible with another.
    pub fn check(&self) -> Result<(), Error> {
        let bad = |option: String, reason: String| Err(Error::Option { option, reason });
        if self.null && self.file.is_some() {
            return bad("null=true".into(), "it can't go with file=: nothing would be written".into());
        }
        if self.populate == Some(true) && (self.null || self.file.is_some()) {
            return bad(
                "populate=true".into(),
                "it can't go with file= or null=true, which take no memory".into(),
            );
        }
        if self.lba.len() > self.namespaces as usize {
            let lba: Vec<_> = self.lba.iter().map(u32::to_string).collect();
            let reason = format!("more block sizes than namespaces={}", self.namespaces);
            return bad(format!("lba={}", lba.join("+")), reason);
        }
        self.check_functions()?;
        self.check_metadata()?;
        if let Some(nn) = self.nn.filter(|nn| *nn < self.namespaces) {
            let reason = format!("less than namespaces={}", self.namespaces);
            return bad(format!("nn={nn}"), reason);
        }
        if self.mdts < 2 * self.mpsmin {
            let reason = format!("two memory pages of mpsmin={} at least", Bytes(self.mpsmin.into()));
            return bad(format!("mdts={}", Bytes(self.mdts.into())), reason);
        }
        self.zones.check(self.namespaces, self.size, self.file.is_some())?;
        self.placement.check(self.zones.any())?;
        let others = [
            (self.file.is_some(), "file=: a file keeps blocks, not keys"),
            (self.null, "null=true: nothing would be stored"),
            (self.populate == Some(true), "populate=true: values take memory as they are stored"),
        ];
        self.keys.check(self.namespaces, &self.zones, others)?;
        if let Some(state) = self.ana.filter(|_| self.keys.any()) {
            let reason = "it can't go with kv=true: it is about blocks and zones here".into();
            return bad(format!("ana={}", access::text(state)), reason);
        }
        let block = self.largest_block();
        self.atomic.check(block)?;
        match self.size {
            Some(size) if size % block != 0 => bad(
                format!("size={}", Bytes(size)),
                format!("it is not a multiple of the block size, {block} bytes"),
            ),
            _ => Ok(()),
        }
    }
}

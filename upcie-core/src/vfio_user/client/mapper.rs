//! Mapping of the client's memory at its server.

use super::{connection::Connection, exchange::Mapped};
use crate::{
    Error, Result,
    dma::Mapper,
    memory::Memory,
    vfio_user::wire::{DmaMap, DmaUnmap, command, dma},
};
use std::{
    ptr::NonNull,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};
use zerocopy::IntoBytes;

/// The server's mappings of this process's memory.
#[derive(Debug)]
pub struct Table {
    pub connection: Arc<Connection>,
    /// The number of mappings.
    pub maps: AtomicU64,
}

// SAFETY: the server receives the memory's own file for `iova`. An unmapping is `Ok` when the server has confirmed it, or
// is gone: then it can at most hold a mapping of a file that nobody else uses.
unsafe impl Mapper for Table {
    fn map(&self, iova: u64, memory: &Memory) -> Result<()> {
        let operation = "mapping DMA memory";
        let max = self.connection.peer().max_dma_maps;
        let map = DmaMap {
            argsz: size_of::<DmaMap>() as u32,
            flags: dma::READ | dma::WRITE,
            offset: 0,
            address: iova,
            size: memory.len() as u64,
        };
        // A server that accepts no descriptors requests the bytes by message.
        // SAFETY: the descriptor goes only to the server, which is the device of this space.
        let fd = unsafe { memory.file() };
        let fds = if self.connection.peer().max_msg_fds > 0 { &[fd][..] } else { &[] };
        let at = NonNull::new(memory.as_ptr());
        let at = at.ok_or_else(|| self.connection.protocol(operation, "memory at address 0"))?;
        let mapped = Mapped { iova, len: map.size, at };
        let counted = self
            .maps
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |maps| (maps < max).then_some(maps + 1));
        if counted.is_err() {
            return Err(Error::unusable(
                self.connection.name(),
                format!("its server takes {max} DMA mappings, all in use: use fewer, larger ones"),
            ));
        }
        // SAFETY: the DMA space keeps the memory until `unmap` has returned Ok, or this returns an error.
        unsafe { self.connection.remember(mapped) };
        let result = self.connection.request(command::DMA_MAP, operation, &[map.as_bytes()], fds);
        if let Err(error) = result {
            self.connection.forget(iova, mapped.len);
            self.maps.fetch_sub(1, Ordering::Relaxed);
            return Err(error);
        }
        Ok(())
    }

    fn hands_out_files(&self) -> bool {
        self.connection.peer().max_msg_fds > 0
    }

    fn unmap(&self, iova: u64, len: u64) -> Result<()> {
        let unmap = DmaUnmap { argsz: size_of::<DmaUnmap>() as u32, flags: 0, address: iova, size: len };
        let parts = [unmap.as_bytes()];
        match self.connection.request(command::DMA_UNMAP, "unmapping DMA memory", &parts, &[]) {
            // Without a connection the server can at most hold its own mapping of the file, whose pages nobody else uses.
            Err(error) if !self.connection.is_dead() => return Err(error),
            _ => self.connection.forget(iova, len),
        }
        // An address space unmaps each mapping once.
        self.maps.fetch_sub(1, Ordering::Relaxed);
        Ok(())
    }

    fn keep(&self, memory: Memory) {
        self.connection.keep(memory);
    }
}

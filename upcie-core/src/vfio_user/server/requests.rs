//! A client's requests and their answers.

use super::{
    backend::{Backend, Layout},
    client::Client,
    client_memory::MAX_MAPS,
};
use crate::{
    memory::Memory,
    vfio_user::{
        capabilities::Capabilities,
        socket::{Fault, MAX_FDS, Message, message},
        wire::{
            DeviceInfo, DmaMap, DmaUnmap, Header, IrqInfo, MAJOR, MAX_DATA, MINOR, RegionAccess, RegionInfo,
            SetIrqs, Version, command, dma, flags, region_info, split, vfio,
        },
    },
};
use nix::{errno::Errno, sys::mman::ProtFlags};
use std::{io, os::fd::OwnedFd, sync::Arc};
use zerocopy::{FromBytes, IntoBytes};

/// The answer to a successful request.
#[derive(Debug, Default)]
struct Answer {
    payload: Vec<u8>,
    /// A file to send with it.
    memory: Option<Arc<Memory>>,
}

impl From<Vec<u8>> for Answer {
    fn from(payload: Vec<u8>) -> Self {
        Self { payload, memory: None }
    }
}

/// The state of a session, beside the parts that the backend uses.
#[derive(Debug)]
pub struct Requests {
    layout: Layout,
    peer: Option<Capabilities>,
}

/// Parses the structure at the start of a request and returns it with the rest.
fn parse<T: FromBytes>(payload: &[u8]) -> Result<(T, &[u8]), Errno> {
    split(payload).map_err(|_| Errno::EINVAL)
}

impl Requests {
    /// Makes the state before the client's first message.
    pub fn new(layout: Layout) -> Self {
        Self { layout, peer: None }
    }

    /// Returns whether the version has been negotiated.
    pub fn negotiated(&self) -> bool {
        self.peer.is_some()
    }

    /// Executes a request and answers it.
    pub fn handle<B: Backend + ?Sized>(
        &mut self,
        request: Message,
        client: &mut Client,
        backend: &mut B,
    ) -> Result<(), Fault> {
        let header = request.header;
        if header.is_reply() {
            return Err(Fault::Garbage("an answer without a request"));
        }
        let answer = match (&self.peer, header.command) {
            (None, command::VERSION) => self.version(&request.payload, client),
            (None, _) | (Some(_), command::VERSION) => Err(Errno::EINVAL),
            _ => self.answer(request, client, backend),
        };
        if header.flags & flags::NO_REPLY == 0 {
            let reply = Header { flags: flags::REPLY, error: 0, ..header };
            match &answer {
                Ok(Answer { payload, memory }) => {
                    // SAFETY: the descriptor goes to the client, which may map this memory as registers. The memory is in
                    // no region, so no buffer is in it.
                    let fd = memory.as_ref().map(|memory| unsafe { memory.file() });
                    client.channel.send(message(reply, &[payload]), fd.as_slice())?;
                }
                Err(errno) => {
                    tracing::debug!(command = command::name(header.command), %errno, "refused a request");
                    let error = Header { flags: flags::REPLY | flags::ERROR, error: *errno as u32, ..reply };
                    client.channel.send(message(error, &[]), &[])?;
                }
            }
        }
        // Without a version no other request is possible.
        if self.peer.is_none() {
            Err(Fault::Garbage("a vfio-user version that is not supported"))
        } else {
            Ok(())
        }
    }

    fn answer<B: Backend + ?Sized>(
        &self,
        request: Message,
        client: &mut Client,
        backend: &mut B,
    ) -> Result<Answer, Errno> {
        let Message { header, payload, fds, refused } = request;
        if refused > 0 {
            return Err(Errno::EINVAL);
        }
        match header.command {
            command::DMA_MAP => map(&payload, fds, client),
            command::DMA_UNMAP => unmap(&payload, client),
            command::GET_INFO => self.info(&payload),
            command::GET_REGION_INFO => self.region_info(&payload),
            command::GET_IRQ_INFO => irq_info(&payload, client),
            command::SET_IRQS => {
                let (set, data) = parse::<SetIrqs>(&payload)?;
                backend.update_interrupts(client);
                client.irqs.set(set, data, fds)?;
                Ok(Answer::default())
            }
            command::REGION_READ => self.read(&payload, client, backend),
            command::REGION_WRITE => self.write(&payload, client, backend),
            command::RESET => {
                backend.reset();
                Ok(Answer::default())
            }
            _ => Err(Errno::ENOTSUP),
        }
    }

    fn version(&mut self, payload: &[u8], client: &mut Client) -> Result<Answer, Errno> {
        let (version, data) = parse::<Version>(payload)?;
        if version.major != MAJOR {
            return Err(Errno::EINVAL);
        }
        let peer = Capabilities::parse(data).map_err(|_| Errno::EINVAL)?;
        if peer.max_data_xfer_size == 0 {
            return Err(Errno::EINVAL);
        }
        client.max_data = peer.max_data_xfer_size.min(MAX_DATA);
        self.peer = Some(peer);
        let ours = Capabilities {
            max_msg_fds: MAX_FDS as u64,
            max_data_xfer_size: MAX_DATA,
            max_dma_maps: MAX_MAPS as u64,
            pgsizes: 4096,
        };
        let version = Version { major: MAJOR, minor: version.minor.min(MINOR) };
        Ok([version.as_bytes(), ours.to_json().as_bytes()].concat().into())
    }

    fn info(&self, payload: &[u8]) -> Result<Answer, Errno> {
        // Later protocol versions may send a shorter structure, but always `argsz`.
        let (argsz, _) = parse::<u32>(payload)?;
        let reply = DeviceInfo {
            argsz: size_of::<DeviceInfo>() as u32,
            flags: vfio::DEVICE_PCI | vfio::DEVICE_RESET,
            regions: self.layout.regions.len() as u32,
            irqs: self.layout.irqs.len() as u32,
        };
        if argsz < reply.argsz {
            return Err(Errno::EINVAL);
        }
        Ok(reply.as_bytes().to_vec().into())
    }

    fn region_info(&self, payload: &[u8]) -> Result<Answer, Errno> {
        let (asked, _) = parse::<RegionInfo>(payload)?;
        let region = self.layout.regions.get(asked.index as usize).ok_or(Errno::EINVAL)?;
        let fds = self.peer.map_or(0, |peer| peer.max_msg_fds);
        let mappable = region.mappable.as_ref().filter(|mappable| fds > 0 && !mappable.areas.is_empty());
        let areas = mappable.map(|mappable| mappable.areas.as_slice());
        let mut reply = region_info(asked.index, region.size, areas);
        if (asked.argsz as usize) < size_of::<RegionInfo>() {
            return Err(Errno::EINVAL);
        }
        if reply.len() > asked.argsz as usize {
            // Send only the fixed part, whose argsz is the size of the whole; the file is sent with the whole. The flag
            // for capabilities is cleared, because QEMU checks their offset before argsz and gives up on 0.
            let (mut info, _) = parse::<RegionInfo>(&reply)?;
            info.flags &= !vfio::REGION_CAPS;
            info.cap_offset = 0;
            reply = info.as_bytes().to_vec();
            return Ok(reply.into());
        }
        Ok(Answer { payload: reply, memory: mappable.map(|mappable| mappable.memory.clone()) })
    }

    fn read<B: Backend + ?Sized>(
        &self,
        payload: &[u8],
        client: &mut Client,
        backend: &mut B,
    ) -> Result<Answer, Errno> {
        let (access, _) = parse::<RegionAccess>(payload)?;
        self.check(access)?;
        let mut reply = access.as_bytes().to_vec();
        reply.resize(size_of::<RegionAccess>() + access.count as usize, 0);
        if access.count > 0 {
            let data = &mut reply[size_of::<RegionAccess>()..];
            backend.read(client, access.region, access.offset, data).map_err(errno)?;
        }
        Ok(reply.into())
    }

    fn write<B: Backend + ?Sized>(
        &self,
        payload: &[u8],
        client: &mut Client,
        backend: &mut B,
    ) -> Result<Answer, Errno> {
        let (access, data) = parse::<RegionAccess>(payload)?;
        self.check(access)?;
        if data.len() != access.count as usize {
            return Err(Errno::EINVAL);
        }
        if !data.is_empty() {
            backend.write(client, access.region, access.offset, data).map_err(errno)?;
        }
        Ok(access.as_bytes().to_vec().into())
    }

    fn check(&self, access: RegionAccess) -> Result<(), Errno> {
        let region = self.layout.regions.get(access.region as usize).ok_or(Errno::EINVAL)?;
        let end = access.offset.checked_add(access.count.into()).ok_or(Errno::EINVAL)?;
        if end > region.size || u64::from(access.count) > MAX_DATA {
            return Err(Errno::EINVAL);
        }
        Ok(())
    }
}

/// Returns the number of a backend's error.
fn errno(error: io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}

fn map(payload: &[u8], mut fds: Vec<OwnedFd>, client: &mut Client) -> Result<Answer, Errno> {
    let (map, _) = parse::<DmaMap>(payload)?;
    if (map.argsz as usize) < size_of::<DmaMap>() || fds.len() > 1 {
        return Err(Errno::EINVAL);
    }
    if map.flags & !(dma::READ | dma::WRITE | dma::MMAP) != 0 {
        return Err(Errno::ENOTSUP);
    }
    let mut access = ProtFlags::empty();
    access.set(ProtFlags::PROT_READ, map.flags & dma::READ != 0);
    access.set(ProtFlags::PROT_WRITE, map.flags & dma::WRITE != 0);
    client.table.map(map.address, map.size, access, fds.pop(), map.offset)?;
    Ok(Answer::default())
}

fn unmap(payload: &[u8], client: &mut Client) -> Result<Answer, Errno> {
    let (mut unmap, _) = parse::<DmaUnmap>(payload)?;
    match unmap.flags {
        0 => unmap.size = client.table.unmap(unmap.address, unmap.size)?,
        dma::UNMAP_ALL if unmap.address == 0 && unmap.size == 0 => client.table.clear(),
        dma::UNMAP_ALL => return Err(Errno::EINVAL),
        _ => return Err(Errno::ENOTSUP),
    }
    client.forget_translations();
    unmap.argsz = size_of::<DmaUnmap>() as u32;
    Ok(unmap.as_bytes().to_vec().into())
}

fn irq_info(payload: &[u8], client: &Client) -> Result<Answer, Errno> {
    let (asked, _) = parse::<IrqInfo>(payload)?;
    let (flags, count) = client.irqs.describe(asked.index).ok_or(Errno::EINVAL)?;
    let argsz = size_of::<IrqInfo>() as u32;
    if asked.argsz < argsz {
        return Err(Errno::EINVAL);
    }
    Ok(IrqInfo { argsz, flags, index: asked.index, count }.as_bytes().to_vec().into())
}

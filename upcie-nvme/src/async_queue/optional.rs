//! Futures of commands besides those that each controller has; Copy is in `copies`.

use super::{
    command::Command,
    handle::{AsyncHandle, RemoteSubmission},
    queue::AsyncQueue,
    submission::Submission,
};
use crate::{
    Result,
    engine::{Extent, Io, KeyCommand, WithMetadata},
    protection::Protect,
};
use upcie_core::dma::DmaBuf;

impl AsyncQueue {
    /// Transfers `buffers`, data and metadata apart from it, as `io` describes
    /// ([`Turn::submit_with_metadata`](crate::Turn::submit_with_metadata)). The future is like that of [`read`](Self::read), with
    /// both buffers.
    ///
    /// ```
    /// # use upcie_nvme::Controller;
    /// use upcie_nvme::{Io, WithMetadata, protection::{Checks, Protect}};
    ///
    /// let controller = Controller::open("emu:size=1M,ms=8,pi=1")?;
    /// let namespace = controller.namespace(1)?;
    /// let queue = controller.queue_pair().create_async()?;
    /// # smol::block_on(async {
    /// // The controller makes the protection information.
    /// let made = Io::write(&namespace, 0).protect(Protect::new().action());
    /// let (result, data) = queue.submit(made, controller.alloc(4096)?).await;
    /// result?;
    /// // It checks what it reads, and returns what it has checked.
    /// let checked = Io::read(&namespace, 0).protect(Protect::new().check(Checks::all()));
    /// let buffers = WithMetadata { data, metadata: controller.alloc(8 * 8)? };
    /// let (result, buffers) = queue.submit_with_metadata(checked, buffers).await;
    /// result?;
    /// assert_eq!((buffers.data.len(), buffers.metadata.len()), (4096, 64));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn submit_with_metadata(
        &self,
        io: Io<'_>,
        buffers: WithMetadata,
    ) -> Submission<(Result<()>, WithMetadata)> {
        self.command(Command::with_metadata(io), buffers.join())
    }

    /// Appends `buffer`, a whole number of blocks, to the zone whose first block is `zone` ([`Turn::append`](crate::Turn::append)).
    /// The future resolves to the first block that the controller has written, and the buffer. So many tasks may append to
    /// one zone at once.
    ///
    /// ```
    /// # use upcie_nvme::Controller;
    /// let controller = Controller::open("emu:size=1M,zoned=true,zone-size=64K")?;
    /// let namespace = controller.namespace(1)?;
    /// let queue = controller.queue_pair().create_async()?;
    /// # smol::block_on(async {
    /// let zone = namespace.zones()?.start_of(3);
    /// let (block, _buffer) = queue.append(&namespace, zone, controller.alloc(4096)?).await;
    /// assert_eq!(block?, zone);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn append(
        &self,
        namespace: &impl AsRef<Extent>,
        zone: u64,
        buffer: DmaBuf,
    ) -> Submission<(Result<u64>, DmaBuf)> {
        self.command(Command::Append { extent: *namespace.as_ref(), zone }, buffer)
    }

    /// Executes a command of the key value command set with all of `buffer`, the empty one where the command has no data
    /// ([`Turn::submit_key`](crate::Turn::submit_key)). The future resolves to the buffer and dword 0 of the completion: the length of
    /// the whole value in bytes after a Retrieve; it may be longer than the buffer. It has no meaning after other commands.
    ///
    /// ```
    /// # use upcie_nvme::{Controller, DmaBuf};
    /// use upcie_nvme::{KeyCommand, spec::{Key, Status}};
    ///
    /// let controller = Controller::open("emu:size=1M,kv=true")?;
    /// let namespace = controller.namespace(1)?;
    /// let queue = controller.queue_pair().create_async()?;
    /// # smol::block_on(async {
    /// let key = Key::new(b"greeting")?;
    /// let mut value = controller.alloc(5)?;
    /// value.write_at(0, b"hello");
    /// queue.submit_key(KeyCommand::store(&namespace, key), value).await.0?;
    ///
    /// let (len, value) = queue.submit_key(KeyCommand::retrieve(&namespace, key), controller.alloc(4096)?).await;
    /// assert_eq!(value.to_vec()[..len?], *b"hello");
    ///
    /// queue.submit_key(KeyCommand::delete(&namespace, key), DmaBuf::empty()).await.0?;
    /// let (exists, _) = queue.submit_key(KeyCommand::exist(&namespace, key), DmaBuf::empty()).await;
    /// assert_eq!(exists.unwrap_err().status(), Some(Status::KEY_DOES_NOT_EXIST));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn submit_key(&self, command: KeyCommand<'_>, buffer: DmaBuf) -> Submission<(Result<usize>, DmaBuf)> {
        self.command(command.into(), buffer)
    }

    /// Compares all of `buffer`, a whole number of blocks, with the blocks from `slba` on
    /// ([`Turn::compare`](crate::Turn::compare)). The future resolves to `false` if they differ, and to the buffer.
    ///
    /// ```
    /// # use upcie_nvme::Controller;
    /// # let controller = Controller::open("emu:size=1M")?;
    /// # let namespace = controller.namespace(1)?;
    /// # let queue = controller.queue_pair().create_async()?;
    /// # smol::block_on(async {
    /// let mut buffer = controller.alloc(4096)?;
    /// buffer.fill(7);
    /// let (is_same, buffer) = queue.compare(&namespace, 0, buffer).await;
    /// assert!(!is_same?, "the blocks are zeros");
    /// # drop(buffer);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn compare(
        &self,
        namespace: &impl AsRef<Extent>,
        slba: u64,
        buffer: DmaBuf,
    ) -> Submission<(Result<bool>, DmaBuf)> {
        self.command(Command::Compare { extent: *namespace.as_ref(), slba }, buffer)
    }

    /// Lets the controller read `blocks` blocks from `slba` on without a transfer ([`Turn::verify`](crate::Turn::verify)), and check
    /// their protection information as `protect` says ([`Turn::verify_protected`](crate::Turn::verify_protected)). The future's
    /// buffer is empty.
    pub fn verify(
        &self,
        namespace: &impl AsRef<Extent>,
        slba: u64,
        blocks: u32,
        protect: impl Into<Option<Protect>>,
    ) -> Submission {
        self.command(verify(namespace, slba, blocks, protect), DmaBuf::empty())
    }

    /// Makes reads of `blocks` blocks from `slba` on fail until they are written
    /// ([`Turn::write_uncorrectable`](crate::Turn::write_uncorrectable)). The future's buffer is empty.
    pub fn write_uncorrectable(&self, namespace: &impl AsRef<Extent>, slba: u64, blocks: u32) -> Submission {
        let extent = *namespace.as_ref();
        self.command(Command::WriteUncorrectable { extent, slba, blocks }, DmaBuf::empty())
    }

    /// Writes all of `new` to the blocks from `slba` on if they have the data of `expected`, which is as long; no other command of
    /// any host comes in between ([`Turn::compare_and_write`](crate::Turn::compare_and_write)). The future resolves to `false` if the
    /// blocks differ, when nothing was written, and to both buffers. The operation takes two places in the queue.
    ///
    /// ```
    /// # use upcie_nvme::Controller;
    /// # let controller = Controller::open("emu:size=1M")?;
    /// # let namespace = controller.namespace(1)?;
    /// # let queue = controller.queue_pair().create_async()?;
    /// # smol::block_on(async {
    /// let (mut free, mut taken) = (controller.alloc(512)?, controller.alloc(512)?);
    /// free.fill(0);
    /// taken.fill(7);
    /// let (is_mine, [free, taken]) = queue.compare_and_write(&namespace, 0, free, taken).await;
    /// assert!(is_mine?);
    /// let (is_mine, _) = queue.compare_and_write(&namespace, 0, free, taken).await;
    /// assert!(!is_mine?, "it is taken now");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn compare_and_write(
        &self,
        namespace: &impl AsRef<Extent>,
        slba: u64,
        expected: DmaBuf,
        new: DmaBuf,
    ) -> Submission<(Result<bool>, [DmaBuf; 2])> {
        let (command, buffer) = compare_and_write(namespace, slba, expected, new);
        self.command(command, buffer)
    }
}

impl AsyncHandle {
    /// Transfers data and metadata like [`AsyncQueue::submit_with_metadata`].
    pub fn submit_with_metadata(
        &self,
        io: Io<'_>,
        buffers: WithMetadata,
    ) -> RemoteSubmission<(Result<()>, WithMetadata)> {
        self.command(Command::with_metadata(io), buffers.join())
    }

    /// Appends blocks to a zone like [`AsyncQueue::append`].
    pub fn append(
        &self,
        namespace: &impl AsRef<Extent>,
        zone: u64,
        buffer: DmaBuf,
    ) -> RemoteSubmission<(Result<u64>, DmaBuf)> {
        self.command(Command::Append { extent: *namespace.as_ref(), zone }, buffer)
    }

    /// Executes a command of the key value command set like [`AsyncQueue::submit_key`].
    pub fn submit_key(
        &self,
        command: KeyCommand<'_>,
        buffer: DmaBuf,
    ) -> RemoteSubmission<(Result<usize>, DmaBuf)> {
        self.command(command.into(), buffer)
    }

    /// Compares blocks like [`AsyncQueue::compare`].
    pub fn compare(
        &self,
        namespace: &impl AsRef<Extent>,
        slba: u64,
        buffer: DmaBuf,
    ) -> RemoteSubmission<(Result<bool>, DmaBuf)> {
        self.command(Command::Compare { extent: *namespace.as_ref(), slba }, buffer)
    }

    /// Verifies blocks like [`AsyncQueue::verify`].
    pub fn verify(
        &self,
        namespace: &impl AsRef<Extent>,
        slba: u64,
        blocks: u32,
        protect: impl Into<Option<Protect>>,
    ) -> RemoteSubmission {
        self.command(verify(namespace, slba, blocks, protect), DmaBuf::empty())
    }

    /// Makes blocks unreadable like [`AsyncQueue::write_uncorrectable`].
    pub fn write_uncorrectable(
        &self,
        namespace: &impl AsRef<Extent>,
        slba: u64,
        blocks: u32,
    ) -> RemoteSubmission {
        let extent = *namespace.as_ref();
        self.command(Command::WriteUncorrectable { extent, slba, blocks }, DmaBuf::empty())
    }

    /// Compares and writes like [`AsyncQueue::compare_and_write`].
    pub fn compare_and_write(
        &self,
        namespace: &impl AsRef<Extent>,
        slba: u64,
        expected: DmaBuf,
        new: DmaBuf,
    ) -> RemoteSubmission<(Result<bool>, [DmaBuf; 2])> {
        let (command, buffer) = compare_and_write(namespace, slba, expected, new);
        self.command(command, buffer)
    }
}

fn verify(
    namespace: &impl AsRef<Extent>,
    slba: u64,
    blocks: u32,
    protect: impl Into<Option<Protect>>,
) -> Command {
    Command::Verify { extent: *namespace.as_ref(), slba, blocks, protect: protect.into() }
}

fn compare_and_write(
    namespace: &impl AsRef<Extent>,
    slba: u64,
    mut expected: DmaBuf,
    new: DmaBuf,
) -> (Command, DmaBuf) {
    let segments = if expected.is_empty() { 0 } else { expected.segments().count() };
    expected.chain(new);
    (Command::CompareAndWrite { extent: *namespace.as_ref(), slba, segments }, expected)
}

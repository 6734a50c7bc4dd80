//! Commands that take more than four arguments, described without their buffers.

use super::Extent;
use crate::{
    protection::Protect,
    spec::{DirectiveType, IoFlags, NvmOpcode},
};

/// The bits of dwords 12 and 13 of a command that its caller chooses: flags and a directive.
///
/// One word for both: what joins the flags with the number of blocks joins the directive at no cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Dwords(u64);

impl Dwords {
    pub(crate) const NONE: Self = Self(0);

    /// Returns the bits at their position in both dwords taken as one word.
    #[inline(always)]
    pub(crate) const fn word(self) -> u64 {
        self.0
    }

    /// Adds `flags`.
    #[inline(always)]
    pub(crate) const fn with(self, flags: IoFlags) -> Self {
        Self(self.0 | flags.word())
    }

    /// Returns the directive of a placement, if there is one ([`Io::placement`]).
    pub(super) fn placed(placement: Option<u16>) -> Self {
        placement
            .map_or(Self::NONE, |identifier| Self::NONE.directed(DirectiveType::DATA_PLACEMENT, identifier))
    }

    /// Sets the directive: DTYPE is bits 23:20 of dword 12, DSPEC bits 31:16 of dword 13.
    #[inline(always)]
    pub(crate) const fn directed(self, kind: DirectiveType, specific: u16) -> Self {
        const FIELDS: u64 = 0xf << 20 | 0xffff << 48;
        Self(self.0 & !FIELDS | (kind.0 as u64 & 0xf) << 20 | (specific as u64) << 48)
    }
}

/// The direction of a transfer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Direction {
    /// A Write command: from the buffer to the namespace.
    Write = NvmOpcode::WRITE.0,
    /// A Read command: from the namespace to the buffer.
    Read = NvmOpcode::READ.0,
}

impl Direction {
    /// Returns the command's opcode.
    #[inline(always)]
    pub const fn opcode(self) -> NvmOpcode {
        NvmOpcode(self as u8)
    }
}

/// A Read or Write command without its buffer: direction, place, flags.
///
/// # Examples
/// ```
/// use upcie_nvme::{Controller, Io, Wait};
///
/// let controller = Controller::open("emu:size=1M")?;
/// let namespace = controller.namespace(1)?;
/// let mut queue = controller.queue_pair().create::<u64>()?;
/// // Writes past a volatile cache.
/// queue.turn()?.submit(Io::write(&namespace, 8).fua(), controller.alloc(4096)?, 0)?;
/// assert!(queue.wait(Wait::Poll, std::time::Duration::from_secs(10))?);
/// queue.turn()?.next().unwrap().result()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy)]
#[must_use = "a command is sent by a turn's `submit`"]
pub struct Io<'n> {
    pub(crate) extent: &'n Extent,
    pub(crate) direction: Direction,
    pub(crate) slba: u64,
    pub(crate) flags: Dwords,
    pub(crate) protect: Option<Protect>,
}

impl<'n> Io<'n> {
    /// Describes a transfer in `direction`, from or to the blocks from `slba` on.
    #[inline(always)]
    pub fn new(direction: Direction, namespace: &'n impl AsRef<Extent>, slba: u64) -> Self {
        Self { extent: namespace.as_ref(), direction, slba, flags: Dwords::NONE, protect: None }
    }

    /// Describes a read of the blocks from `slba` on.
    #[inline(always)]
    pub fn read(namespace: &'n impl AsRef<Extent>, slba: u64) -> Self {
        Self::new(Direction::Read, namespace, slba)
    }

    /// Describes a write of the blocks from `slba` on.
    #[inline(always)]
    pub fn write(namespace: &'n impl AsRef<Extent>, slba: u64) -> Self {
        Self::new(Direction::Write, namespace, slba)
    }

    /// Returns the direction of the transfer.
    pub fn direction(&self) -> Direction {
        self.direction
    }

    /// Returns the first block.
    pub fn slba(&self) -> u64 {
        self.slba
    }

    /// Adds Force Unit Access ([`IoFlags::FUA`]).
    #[inline(always)]
    pub fn fua(self) -> Self {
        self.flags(IoFlags::FUA)
    }

    /// Adds `flags`, without [`IoFlags::DEALLOCATE`], which has no meaning here.
    #[inline(always)]
    pub fn flags(mut self, flags: IoFlags) -> Self {
        self.flags = self.flags.with(flags.difference(IoFlags::DEALLOCATE));
        self
    }

    /// Sets the placement of a write: `identifier` names a placement handle of the namespace and a reclaim group, whose reclaim
    /// unit the controller writes to ([`Placement::identifier`](crate::Placement::identifier); Base, "Data
    /// Placement Directive"). A controller writes a command with an identifier that it does not know by placement handle 0. A
    /// read has no placement, and leaves it out.
    #[inline(always)]
    pub fn placement(self, identifier: u16) -> Self {
        self.directive(DirectiveType::DATA_PLACEMENT, identifier)
    }

    /// Sets the directive of a write (DTYPE, DSPEC; Base, "Directives"): a [placement](Self::placement) or a stream, which
    /// [`EnableDirective`](crate::spec::EnableDirective) turns on. A read has no directive, and leaves it out.
    #[inline(always)]
    pub fn directive(mut self, kind: DirectiveType, specific: u16) -> Self {
        if matches!(self.direction, Direction::Write) {
            self.flags = self.flags.directed(kind, specific);
        }
        self
    }

    /// Sets the protection of the blocks: what the controller inserts, strips and checks. A namespace without protection
    /// information refuses the command ([`Refusal::Unprotected`](crate::Refusal::Unprotected)).
    #[inline(always)]
    pub fn protect(mut self, protect: Protect) -> Self {
        self.protect = Some(protect);
        self
    }
}

/// A Write Zeroes command: its blocks and flags.
///
/// # Examples
/// ```
/// use upcie_nvme::{Controller, Wait, Zeroes};
///
/// let controller = Controller::open("emu:size=1M")?;
/// let namespace = controller.namespace(1)?;
/// let mut queue = controller.queue_pair().create::<u64>()?;
/// queue.turn()?.write_zeroes(Zeroes::new(&namespace, 8, 16).deallocate(), 0)?;
/// assert!(queue.wait(Wait::Poll, std::time::Duration::from_secs(10))?);
/// queue.turn()?.next().unwrap().result()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy)]
#[must_use = "a command is sent by `Turn::write_zeroes`"]
pub struct Zeroes<'n> {
    pub(crate) extent: &'n Extent,
    pub(crate) slba: u64,
    pub(crate) blocks: u32,
    pub(crate) flags: Dwords,
    pub(crate) protect: Option<Protect>,
}

impl<'n> Zeroes<'n> {
    /// Describes zeros in `blocks` blocks (1 to 65536) from `slba` on.
    #[inline(always)]
    pub fn new(namespace: &'n impl AsRef<Extent>, slba: u64, blocks: u32) -> Self {
        Self { extent: namespace.as_ref(), slba, blocks, flags: Dwords::NONE, protect: None }
    }

    /// Lets the controller deallocate the blocks, if they read as zeros afterwards ([`IoFlags::DEALLOCATE`]).
    #[inline(always)]
    pub fn deallocate(self) -> Self {
        self.flags(IoFlags::DEALLOCATE)
    }

    /// Adds Force Unit Access ([`IoFlags::FUA`]).
    #[inline(always)]
    pub fn fua(self) -> Self {
        self.flags(IoFlags::FUA)
    }

    /// Adds `flags`.
    #[inline(always)]
    pub fn flags(mut self, flags: IoFlags) -> Self {
        self.flags = self.flags.with(flags);
        self
    }

    /// Sets the placement of the zeros, as [`Io::placement`] does.
    #[inline(always)]
    pub fn placement(self, identifier: u16) -> Self {
        self.directive(DirectiveType::DATA_PLACEMENT, identifier)
    }

    /// Sets the directive of the zeros, as [`Io::directive`] does.
    #[inline(always)]
    pub fn directive(mut self, kind: DirectiveType, specific: u16) -> Self {
        self.flags = self.flags.directed(kind, specific);
        self
    }

    /// Sets the protection of the blocks: with the [action](Protect::action) the controller makes their protection
    /// information, otherwise it is zeros. Ignored by a namespace without any.
    #[inline(always)]
    pub fn protect(mut self, protect: Protect) -> Self {
        self.protect = Some(protect);
        self
    }
}

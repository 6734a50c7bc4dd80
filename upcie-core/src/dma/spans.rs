//! The device addresses of a chain's bytes as a table, so that a command need not walk the segments.

/// The device addresses of all bytes of a gathered chain ([`DmaBuf::gather`](super::DmaBuf::gather)), in order. Bytes that are contiguous for the
/// device are one span, also across segments.
///
/// Drivers put the addresses into commands as they are: the table is made of a chain that can't change while the table
/// exists.
#[derive(Debug, Default)]
pub struct Spans {
    addresses: Vec<u64>,
    lens: Vec<u64>,
    total: usize,
    space: Option<u64>,
    mixed: bool,
    joints: u64,
    bits: u64,
    inner: u64,
    uneven: bool,
}

impl Spans {
    /// Returns the first address of each span.
    #[inline(always)]
    pub fn addresses(&self) -> &[u64] {
        &self.addresses
    }

    /// Returns the bytes of each span, at least 1.
    #[inline(always)]
    pub fn lens(&self) -> &[u64] {
        &self.lens
    }

    /// Returns the bytes of all spans.
    #[inline(always)]
    pub fn total_len(&self) -> usize {
        self.total
    }

    /// Returns `true` if all spans are in the address space with the id `space`.
    #[inline(always)]
    pub fn is_in(&self, space: u64) -> bool {
        self.space == Some(space) && !self.mixed
    }

    /// Returns the bits that are set in the address at which any span but the last ends, or any but the first begins. So
    /// all of these are multiples of a power of two if its lower bits are not set here.
    #[inline(always)]
    pub fn joints(&self) -> u64 {
        self.joints
    }

    /// Returns the bits that are set in any span's address or length.
    #[inline(always)]
    pub fn bits(&self) -> u64 {
        self.bits
    }

    /// Returns `true` if each span but the first and the last has `len` bytes.
    #[inline(always)]
    pub fn are_inner(&self, len: u64) -> bool {
        !self.uneven && (self.inner == len || self.lens.len() <= 2)
    }

    /// Adds memory in the address space with the id `space`, contiguous for the device.
    pub(super) fn push(&mut self, space: u64, address: u64, len: u64) {
        self.mixed |= *self.space.get_or_insert(space) != space;
        self.total += len as usize;
        self.bits |= address | len;
        if let (Some(&start), Some(last)) = (self.addresses.last(), self.lens.last_mut()) {
            let end = start.wrapping_add(*last);
            if end == address {
                *last += len;
                return;
            }
            self.joints |= end | address;
            match self.addresses.len() {
                1 => {}
                2 => self.inner = *last,
                _ => self.uneven |= self.inner != *last,
            }
        }
        self.addresses.push(address);
        self.lens.push(len);
    }
}

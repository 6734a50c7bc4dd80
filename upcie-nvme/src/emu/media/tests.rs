//! A cache whose medium fails.

use super::{super::HostMemory, Bytes, Cached, Media};
use crate::spec::Status;

/// Blocks that a medium takes, or refuses once.
#[derive(Debug)]
struct Once {
    bytes: Vec<u8>,
    refuses: bool,
}

// SAFETY: one copy of the call's bytes in `read` and one in `write`.
unsafe impl Media for Once {
    fn read(&mut self, host: &mut impl HostMemory, offset: u64, iova: u64, len: usize) -> Result<(), Status> {
        host.write(iova, &self.bytes[offset as usize..][..len]).map_err(|_| Status::DATA_TRANSFER_ERROR)
    }

    fn write(
        &mut self,
        host: &mut impl HostMemory,
        offset: u64,
        iova: u64,
        len: usize,
    ) -> Result<(), Status> {
        if std::mem::take(&mut self.refuses) {
            return Err(Status::WRITE_FAULT);
        }
        let bytes = &mut self.bytes[offset as usize..][..len];
        host.read(iova, bytes).map_err(|_| Status::DATA_TRANSFER_ERROR)
    }

    fn zero(&mut self, offset: u64, len: u64) -> Result<(), Status> {
        self.bytes[offset as usize..][..len as usize].fill(0);
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Status> {
        Ok(())
    }
}

#[test]
fn a_version_that_is_lost_fails_all_flushes() {
    let mut cache = Cached::new(Once { bytes: vec![0; 4096], refuses: false }, 512, 1024);
    let write = |cache: &mut Cached<Once>| cache.write(&mut Bytes(&mut [7; 512]), 0, 0, 512);
    assert_eq!((write(&mut cache), cache.flush()), (Ok(()), Ok(())));
    assert_eq!(write(&mut cache), Ok(()));
    cache.medium().refuses = true;
    for _ in 0..2 {
        let status = cache.flush().unwrap_err();
        assert_eq!((status, status.do_not_retry()), (Status::WRITE_FAULT, true));
    }
}

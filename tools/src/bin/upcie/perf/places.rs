//! Placement identifiers that writes use in turn.

/// A list of placement identifiers, used one after the other.
#[derive(Debug, Clone)]
pub struct Places {
    identifiers: Vec<u16>,
    next: usize,
}

impl Places {
    /// Makes the list of queue pair `index`, which begins with another one than its neighbours. `None` without identifiers.
    pub fn new(identifiers: &[u16], index: u64) -> Option<Self> {
        let count = identifiers.len();
        (count > 0).then(|| Self { identifiers: identifiers.to_vec(), next: (index % count as u64) as usize })
    }

    /// Returns the identifier of the next write.
    #[inline]
    pub fn next(&mut self) -> u16 {
        let identifier = self.identifiers[self.next];
        self.next = if self.next + 1 == self.identifiers.len() { 0 } else { self.next + 1 };
        identifier
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_come_in_turn() {
        let mut places = Places::new(&[3, 0x4001, 7], 4).unwrap();
        let taken: Vec<u16> = (0..5).map(|_| places.next()).collect();
        assert_eq!(taken, [0x4001, 7, 3, 0x4001, 7]);
        assert!(Places::new(&[], 0).is_none());
    }
}

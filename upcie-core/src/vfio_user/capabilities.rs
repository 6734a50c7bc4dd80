//! The capabilities that the two sides exchange in VERSION: a few numbers in JSON.

/// The capabilities that this crate uses. Absent ones have the protocol's defaults.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capabilities {
    /// The number of descriptors that the sender accepts in one message.
    pub max_msg_fds: u64,
    /// Bytes of data in one message.
    pub max_data_xfer_size: u64,
    /// The number of simultaneous DMA mappings.
    pub max_dma_maps: u64,
    /// Bit mask of page sizes of DMA mappings.
    pub pgsizes: u64,
}

impl Default for Capabilities {
    fn default() -> Self {
        Self { max_msg_fds: 1, max_data_xfer_size: 1 << 20, max_dma_maps: 65535, pgsizes: 4096 }
    }
}

impl Capabilities {
    /// Formats the version data of a message, with a NUL at the end.
    pub fn to_json(self) -> String {
        format!(
            "{{\"capabilities\":{{\"max_msg_fds\":{},\"max_data_xfer_size\":{},\"max_dma_maps\":{},\"pgsizes\":{}}}}}\0",
            self.max_msg_fds, self.max_data_xfer_size, self.max_dma_maps, self.pgsizes
        )
    }

    /// Parses version data. Unknown members are ignored, and anything but JSON is an error. Empty data means all
    /// defaults.
    pub fn parse(data: &[u8]) -> Result<Self, &'static str> {
        let end = data.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
        let mut found = Self::default();
        let mut reader = Reader { rest: &data[..end] };
        reader.space();
        if !reader.rest.is_empty() {
            reader.value(Place::Top, MAX_DEPTH, &mut found)?;
            reader.space();
            if !reader.rest.is_empty() {
                return Err("version data with something after its JSON");
            }
        }
        Ok(found)
    }
}

/// The deepest nesting that is parsed.
const MAX_DEPTH: usize = 16;
const BAD: &str = "version data that is not JSON";

/// The position of a value in the document.
#[derive(Clone, Copy, PartialEq)]
enum Place {
    Top,
    Capabilities,
    Elsewhere,
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn space(&mut self) {
        self.rest = self.rest.trim_ascii_start();
    }

    fn take(&mut self, byte: u8) -> bool {
        self.space();
        match self.rest.split_first() {
            Some((&first, rest)) if first == byte => {
                self.rest = rest;
                true
            }
            _ => false,
        }
    }

    /// Parses a value and stores capabilities in `found`. Returns the value if it is a number.
    fn value(
        &mut self,
        place: Place,
        depth: usize,
        found: &mut Capabilities,
    ) -> Result<Option<u64>, &'static str> {
        let inner = depth.checked_sub(1).ok_or("version data nested too deeply")?;
        self.space();
        match self.rest.first() {
            Some(b'{') => self.object(place, inner, found)?,
            Some(b'[') => {
                self.take(b'[');
                if !self.take(b']') {
                    loop {
                        self.value(Place::Elsewhere, inner, found)?;
                        if !self.take(b',') {
                            break;
                        }
                    }
                    if !self.take(b']') {
                        return Err(BAD);
                    }
                }
            }
            Some(b'"') => {
                self.string()?;
            }
            Some(_) => return self.word(),
            None => return Err(BAD),
        }
        Ok(None)
    }

    fn object(&mut self, place: Place, depth: usize, found: &mut Capabilities) -> Result<(), &'static str> {
        self.take(b'{');
        if self.take(b'}') {
            return Ok(());
        }
        loop {
            self.space();
            let key = self.string()?;
            if !self.take(b':') {
                return Err(BAD);
            }
            let inside = match (place, key) {
                (Place::Top, b"capabilities") => Place::Capabilities,
                _ => Place::Elsewhere,
            };
            let number = self.value(inside, depth, found)?;
            if place == Place::Capabilities {
                let field = match key {
                    b"max_msg_fds" => &mut found.max_msg_fds,
                    b"max_data_xfer_size" => &mut found.max_data_xfer_size,
                    b"max_dma_maps" => &mut found.max_dma_maps,
                    b"pgsizes" => &mut found.pgsizes,
                    _ => &mut 0,
                };
                *field = number.unwrap_or(*field);
            }
            if !self.take(b',') {
                break;
            }
        }
        if self.take(b'}') { Ok(()) } else { Err(BAD) }
    }

    /// Parses a string and returns the bytes between the quotes, with escapes as they are.
    fn string(&mut self) -> Result<&'a [u8], &'static str> {
        let rest = self.rest.strip_prefix(b"\"").ok_or(BAD)?;
        let mut at = 0;
        loop {
            match rest.get(at).ok_or(BAD)? {
                b'"' => break,
                b'\\' => at += 2,
                _ => at += 1,
            }
        }
        self.rest = &rest[at + 1..];
        Ok(&rest[..at])
    }

    /// Parses a number, `true`, `false` or `null`. Returns the number if it is an integer that fits.
    fn word(&mut self) -> Result<Option<u64>, &'static str> {
        let of_word = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'+' | b'.');
        let len = self.rest.iter().position(|byte| !of_word(byte)).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(len);
        self.rest = rest;
        let number = word.first().is_some_and(|first| first.is_ascii_digit() || *first == b'-');
        match word {
            b"true" | b"false" | b"null" => Ok(None),
            _ if number => Ok(std::str::from_utf8(word).ok().and_then(|word| word.parse().ok())),
            _ => Err(BAD),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_capabilities_are_parsed() {
        let ours =
            Capabilities { max_msg_fds: 8, max_data_xfer_size: 4096, max_dma_maps: 7, pgsizes: 0x20_1000 };
        assert_eq!(Capabilities::parse(ours.to_json().as_bytes()), Ok(ours));
    }

    #[test]
    fn unknown_members_are_ignored_and_missing_ones_default() {
        let text = br#" { "x": [1, {"max_msg_fds": 3}, "\"}"], "max_msg_fds": 9, "capabilities" : {
            "migration": { "pgsize": 2, "max_msg_fds": 4 }, "twin_socket": {"supported": false},
            "max_msg_fds" : 16, "pgsizes": "no", "max_data_xfer_size": -5, "write_multiple": true } } "#;
        let found = Capabilities::parse(text).unwrap();
        assert_eq!(found, Capabilities { max_msg_fds: 16, ..Capabilities::default() });
        assert_eq!(Capabilities::parse(b""), Ok(Capabilities::default()));
        assert_eq!(Capabilities::parse(b"{}\0"), Ok(Capabilities::default()));
    }

    #[test]
    fn invalid_json_is_refused() {
        let deep = "[".repeat(1000);
        for text in [
            "{",
            "}",
            "{\"a\"}",
            "{\"a\":}",
            "{\"a\":1,}",
            "[1",
            "\"",
            "\"\\",
            "hello",
            "{} {}",
            "{a:1}",
            &deep,
        ] {
            assert!(Capabilities::parse(text.as_bytes()).is_err(), "{text}");
        }
    }
}

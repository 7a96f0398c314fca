//! Header block decoder: every representation of RFC 7541 §6.

use super::table::Dynamic;
use super::{DEFAULT_TABLE_BYTES, ENTRY_OVERHEAD_BYTES, huffman};

/// Why a block cannot be decoded. RFC 9113 §4.3: always ends the connection.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DecodeError {
    /// The block ends inside a field.
    #[error("header block ends inside a field")]
    Truncated,
    /// An integer does not fit, or an index points nowhere.
    #[error("header block has an index or length out of range")]
    OutOfRange,
    /// A Huffman string has wrong padding or the end marker.
    #[error("header block has an invalid huffman string")]
    Huffman,
    /// A size update stands after a field or exceeds what we allow.
    #[error("header block has an invalid table size update")]
    SizeUpdate,
}

/// Whether a decoded list stayed within the caller's budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ListSize {
    /// Every field was passed on.
    Fits,
    /// Fields beyond the budget were dropped; the table is still in step with the peer.
    TooLarge,
}

/// One direction's decoder; its table lives as long as the connection.
#[derive(Debug)]
pub(crate) struct Decoder {
    table: Dynamic,
    name: Vec<u8>,
    value: Vec<u8>,
}

impl Decoder {
    pub(crate) fn new() -> Self {
        Self { table: Dynamic::new(), name: Vec::new(), value: Vec::new() }
    }

    /// Decodes a whole block and passes each field to `visit`, in order, until the list exceeds
    /// `budget_bytes` (counted as RFC 9113 §10.5.1 does, with 32 bytes for each field).
    pub(crate) fn decode(
        &mut self,
        block: &[u8],
        budget_bytes: usize,
        visit: &mut dyn FnMut(&[u8], &[u8]),
    ) -> Result<ListSize, DecodeError> {
        let mut input = Input { rest: block };
        let mut list = List { spent_bytes: 0, budget_bytes, visit };
        let mut fields_seen = false;
        while let Some(&first) = input.rest.first() {
            if first & 0xe0 == 0x20 {
                // RFC 7541 §4.2: size updates stand only at the beginning of a block.
                let size = input.integer(5)?;
                if fields_seen || size > DEFAULT_TABLE_BYTES {
                    return Err(DecodeError::SizeUpdate);
                }
                self.table.resize(size);
                continue;
            }
            fields_seen = true;
            if first & 0x80 != 0 {
                let index = input.integer(7)?;
                let (name, value) = self.table.field(index).ok_or(DecodeError::OutOfRange)?;
                list.push(name, value);
            } else {
                self.literal(&mut input, &mut list, first)?;
            }
        }
        Ok(if list.spent_bytes > budget_bytes { ListSize::TooLarge } else { ListSize::Fits })
    }

    fn literal(
        &mut self,
        input: &mut Input<'_>,
        list: &mut List<'_>,
        first: u8,
    ) -> Result<(), DecodeError> {
        let indexed = first & 0xc0 == 0x40;
        let index = input.integer(if indexed { 6 } else { 4 })?;
        if index == 0 {
            input.string(&mut self.name)?;
        } else {
            let (name, _) = self.table.field(index).ok_or(DecodeError::OutOfRange)?;
            self.name.clear();
            self.name.extend_from_slice(name);
        }
        input.string(&mut self.value)?;
        list.push(&self.name, &self.value);
        if indexed {
            self.table.insert(&self.name, &self.value);
        }
        Ok(())
    }
}

struct List<'a> {
    spent_bytes: usize,
    budget_bytes: usize,
    visit: &'a mut dyn FnMut(&[u8], &[u8]),
}

impl List<'_> {
    fn push(&mut self, name: &[u8], value: &[u8]) {
        let cost = name.len() + value.len() + ENTRY_OVERHEAD_BYTES;
        self.spent_bytes = self.spent_bytes.saturating_add(cost);
        if self.spent_bytes <= self.budget_bytes {
            (self.visit)(name, value);
        }
    }
}

struct Input<'a> {
    rest: &'a [u8],
}

impl<'a> Input<'a> {
    fn byte(&mut self) -> Result<u8, DecodeError> {
        let (first, rest) = self.rest.split_first().ok_or(DecodeError::Truncated)?;
        self.rest = rest;
        Ok(*first)
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], DecodeError> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(DecodeError::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    /// RFC 7541 §5.1. Four continuation bytes (2^28) are more than any limit of ours.
    fn integer(&mut self, prefix_bits: u32) -> Result<usize, DecodeError> {
        let mask = (1usize << prefix_bits) - 1;
        let mut value = usize::from(self.byte()?) & mask;
        if value < mask {
            return Ok(value);
        }
        for shift in [0, 7, 14, 21] {
            let byte = self.byte()?;
            value += usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(DecodeError::OutOfRange)
    }

    fn string(&mut self, into: &mut Vec<u8>) -> Result<(), DecodeError> {
        into.clear();
        let coded = self.rest.first().is_some_and(|byte| byte & 0x80 != 0);
        let length = self.integer(7)?;
        let bytes = self.take(length)?;
        if coded {
            return huffman::decode(bytes, into).map_err(|_| DecodeError::Huffman);
        }
        into.extend_from_slice(bytes);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Fields = Vec<(String, String)>;

    fn decode(decoder: &mut Decoder, block: &[u8], budget: usize) -> Result<Fields, DecodeError> {
        let mut fields = Vec::new();
        decoder.decode(block, budget, &mut |name, value| {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            fields.push((text(name), text(value)));
        })?;
        Ok(fields)
    }

    fn field(name: &str, value: &str) -> (String, String) {
        (name.to_owned(), value.to_owned())
    }

    /// RFC 7541 Appendix C.4: three requests on one connection, Huffman and dynamic table.
    #[test]
    fn the_requests_of_the_rfc_decode_in_sequence() {
        let mut decoder = Decoder::new();
        let first = hex("828684418cf1e3c2e5f23a6ba0ab90f4ff");
        let fields = decode(&mut decoder, &first, 4096).unwrap();
        assert_eq!(fields[3], field(":authority", "www.example.com"));
        let second = hex("828684be5886a8eb10649cbf");
        let fields = decode(&mut decoder, &second, 4096).unwrap();
        assert_eq!(fields[3], field(":authority", "www.example.com"));
        assert_eq!(fields[4], field("cache-control", "no-cache"));
        let third = hex("828785bf408825a849e95ba97d7f8925a849e95bb8e8b4bf");
        let fields = decode(&mut decoder, &third, 4096).unwrap();
        assert_eq!(fields[2], field(":path", "/index.html"));
        assert_eq!(fields[4], field("custom-key", "custom-value"));
    }

    #[test]
    fn a_list_beyond_the_budget_is_cut_but_keeps_the_table_in_step() {
        let mut decoder = Decoder::new();
        let block = hex("4001610162"); // a: b, kept
        let mut seen = 0;
        let size = decoder.decode(&block, 10, &mut |_, _| seen += 1);
        assert_eq!((size, seen), (Ok(ListSize::TooLarge), 0));
        assert_eq!(decode(&mut decoder, &[0xbe], 4096).unwrap(), [field("a", "b")]);
    }

    #[test]
    fn a_size_update_is_taken_first_and_refused_later_or_above_the_limit() {
        let mut decoder = Decoder::new();
        assert!(decode(&mut decoder, &[0x20, 0x82], 4096).is_ok());
        assert_eq!(decode(&mut decoder, &[0x82, 0x20], 4096), Err(DecodeError::SizeUpdate));
        let above = hex("3fe21f"); // 4097
        assert_eq!(decode(&mut decoder, &above, 4096), Err(DecodeError::SizeUpdate));
    }

    #[test]
    fn broken_blocks_are_refused() {
        let mut decoder = Decoder::new();
        assert_eq!(decode(&mut decoder, &[0x80], 4096), Err(DecodeError::OutOfRange));
        assert_eq!(decode(&mut decoder, &[0xbe], 4096), Err(DecodeError::OutOfRange));
        assert_eq!(decode(&mut decoder, &[0x00, 0x05, b'a'], 4096), Err(DecodeError::Truncated));
        let endless = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
        assert_eq!(decode(&mut decoder, &endless, 4096), Err(DecodeError::OutOfRange));
    }

    proptest! {
        #[test]
        fn any_bytes_end_without_a_panic_and_within_the_budget(
            blocks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 1..6),
        ) {
            let mut decoder = Decoder::new();
            for block in blocks {
                let mut spent = 0;
                let mut visit = |name: &[u8], value: &[u8]| spent += name.len() + value.len() + 32;
                let _ = decoder.decode(&block, 1000, &mut visit);
                prop_assert!(spent <= 1000);
            }
        }
    }

    fn hex(text: &str) -> Vec<u8> {
        let digits: Vec<u8> =
            text.bytes().map(|b| (b as char).to_digit(16).unwrap() as u8).collect();
        digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
    }
}

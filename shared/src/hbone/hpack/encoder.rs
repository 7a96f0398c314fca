//! Header block encoder: static names, literal values, nothing remembered.

use super::table::STATIC;

/// Writes header blocks. The only state is whether the first block was written.
#[derive(Debug, Default)]
pub(crate) struct Encoder {
    table_closed: bool,
}

impl Encoder {
    /// Starts a block. The first one sets the dynamic table to zero for good, so a peer that
    /// lowers its limit later never waits for a size update (RFC 7541 §4.2).
    pub(crate) fn begin(&mut self, block: &mut Vec<u8>) {
        if !self.table_closed {
            self.table_closed = true;
            block.push(0x20);
        }
    }

    /// Appends one field; `name` is lower case.
    pub(crate) fn field(&self, block: &mut Vec<u8>, name: &[u8], value: &[u8]) {
        let exact = STATIC.iter().position(|(known, known_value)| {
            !known_value.is_empty() && known_value.as_bytes() == value && known.as_bytes() == name
        });
        if let Some(index) = exact {
            return integer(block, 0x80, 7, index + 1);
        }
        match STATIC.iter().position(|(known, _)| known.as_bytes() == name) {
            Some(index) => integer(block, 0x00, 4, index + 1),
            None => {
                block.push(0x00);
                string(block, name);
            }
        }
        string(block, value);
    }
}

fn string(block: &mut Vec<u8>, bytes: &[u8]) {
    integer(block, 0x00, 7, bytes.len());
    block.extend_from_slice(bytes);
}

fn integer(block: &mut Vec<u8>, flags: u8, prefix_bits: u32, mut value: usize) {
    let mask = (1usize << prefix_bits) - 1;
    if value < mask {
        return block.push(flags | value as u8);
    }
    block.push(flags | mask as u8);
    value -= mask;
    while value >= 0x80 {
        block.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    block.push(value as u8);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{Decoder, ListSize};
    use super::*;

    proptest! {
        #[test]
        fn what_is_encoded_decodes_to_the_same_fields(
            fields in prop::collection::vec(("[a-z:-]{1,40}", "[ -~]{0,300}"), 0..8),
        ) {
            let mut block = Vec::new();
            let mut encoder = Encoder::default();
            encoder.begin(&mut block);
            for (name, value) in &fields {
                encoder.field(&mut block, name.as_bytes(), value.as_bytes());
            }
            let mut seen = Vec::new();
            let size = Decoder::new().decode(&block, 1 << 20, &mut |name, value| {
                let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
                seen.push((text(name), text(value)));
            });
            prop_assert_eq!(size, Ok(ListSize::Fits));
            prop_assert_eq!(seen, fields);
        }
    }
}

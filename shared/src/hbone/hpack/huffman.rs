//! The Huffman code of RFC 7541 Appendix B.
//!
//! The code is canonical: codes of one length are consecutive, in symbol order. So the lengths
//! alone define it, and decoding needs three small tables that are built at compile time.

const SYMBOLS: usize = 257;
const EOS: u16 = 256;
const SHORTEST_BITS: usize = 5;
const LONGEST_BITS: usize = 30;

/// Length in bits of the code of each symbol; the last is EOS.
#[rustfmt::skip]
const LENGTHS: [u8; SYMBOLS] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28,
    28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
    6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6,
    5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10,
    13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
    7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5,
    6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28,
    20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23,
    24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
    22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23,
    21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25,
    19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
    20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23,
    26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
    30,
];

struct Code {
    /// First code of each length.
    first: [u32; LONGEST_BITS + 1],
    /// How many codes have each length.
    count: [u32; LONGEST_BITS + 1],
    /// Where the symbols of each length begin in `symbols`.
    offset: [u32; LONGEST_BITS + 1],
    symbols: [u16; SYMBOLS],
}

static CODE: Code = build();

const fn build() -> Code {
    let mut code = Code {
        first: [0; LONGEST_BITS + 1],
        count: [0; LONGEST_BITS + 1],
        offset: [0; LONGEST_BITS + 1],
        symbols: [0; SYMBOLS],
    };
    let mut next = 0u32;
    let mut placed = 0usize;
    let mut bits = 1;
    while bits <= LONGEST_BITS {
        next <<= 1;
        code.first[bits] = next;
        code.offset[bits] = placed as u32;
        let mut symbol = 0;
        while symbol < SYMBOLS {
            if LENGTHS[symbol] as usize == bits {
                code.symbols[placed] = symbol as u16;
                placed += 1;
                next += 1;
            }
            symbol += 1;
        }
        code.count[bits] = placed as u32 - code.offset[bits];
        bits += 1;
    }
    code
}

/// Why a string is not valid Huffman code.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Invalid;

/// Appends the decoded form of `input` to `output`.
pub(super) fn decode(input: &[u8], output: &mut Vec<u8>) -> Result<(), Invalid> {
    let mut bits: u64 = 0;
    let mut have = 0usize;
    let mut rest = input.iter();
    loop {
        while have <= 56 {
            let Some(byte) = rest.next() else { break };
            bits = (bits << 8) | u64::from(*byte);
            have += 8;
        }
        match next_symbol(bits, have) {
            Some((EOS, _)) => return Err(Invalid), // RFC 7541 §5.2: EOS in a string is an error
            Some((symbol, length)) => {
                output.push(symbol as u8);
                have -= length;
                bits &= (1 << have) - 1;
            }
            None => break,
        }
    }
    // RFC 7541 §5.2: padding is shorter than 8 bits and is a prefix of EOS, that is all ones.
    if have < 8 && bits == (1 << have) - 1 { Ok(()) } else { Err(Invalid) }
}

fn next_symbol(bits: u64, have: usize) -> Option<(u16, usize)> {
    for length in SHORTEST_BITS..=LONGEST_BITS.min(have) {
        let candidate = (bits >> (have - length)) as u32;
        let distance = candidate.wrapping_sub(CODE.first[length]);
        if distance < CODE.count[length] {
            return Some((CODE.symbols[(CODE.offset[length] + distance) as usize], length));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(input: &[u8]) -> Result<Vec<u8>, Invalid> {
        let mut output = Vec::new();
        decode(input, &mut output).map(|()| output)
    }

    /// RFC 7541 Appendix C.4.1.
    #[test]
    fn the_example_of_the_rfc_decodes() {
        let input = [0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff];
        assert_eq!(decoded(&input).unwrap(), b"www.example.com");
    }

    #[test]
    fn long_or_wrong_padding_is_refused() {
        assert_eq!(decoded(&[0xff]), Err(Invalid)); // eight bits of padding
        assert_eq!(decoded(&[0x00]), Err(Invalid)); // '0' and three zero bits
        assert_eq!(decoded(&[0x07]).unwrap(), b"0");
    }

    #[test]
    fn the_end_marker_is_refused() {
        assert_eq!(decoded(&[0xff, 0xff, 0xff, 0xff]), Err(Invalid));
    }

    #[test]
    fn every_bit_pattern_has_exactly_one_meaning() {
        let kraft: f64 = LENGTHS.iter().map(|bits| 0.5f64.powi(i32::from(*bits))).sum();
        assert!((kraft - 1.0).abs() < f64::EPSILON);
    }
}

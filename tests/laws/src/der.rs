//! DER as somebody else's code would write it: right in form, whatever it says.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

pub(crate) const SEQUENCE: u8 = 0x30;
pub(crate) const SET: u8 = 0x31;
pub(crate) const OID: u8 = 0x06;
pub(crate) const OCTET_STRING: u8 = 0x04;
pub(crate) const BIT_STRING: u8 = 0x03;

/// An element with `parts` as its content.
pub(crate) fn element(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.concat();
    let mut bytes = vec![tag];
    match content.len() {
        short @ ..0x80 => bytes.push(short as u8),
        long @ 0x80..0x100 => bytes.extend([0x81, long as u8]),
        long => {
            bytes.push(0x82);
            bytes.extend(u16::try_from(long).expect("inputs are small").to_be_bytes());
        }
    }
    bytes.extend(content);
    bytes
}

/// A text of the form that keys, requests and certificates have in files.
pub(crate) fn pem(label: &str, der: &[u8]) -> String {
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode(der))
}

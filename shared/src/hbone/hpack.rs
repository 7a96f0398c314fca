//! HPACK (RFC 7541): header blocks in both directions.
//!
//! The decoder takes whatever a peer may send: static and dynamic tables, Huffman strings, size
//! updates; memory is bounded by the table (4 KiB) and the caller's budget for a list.
//! The encoder is stateless: static names and literal values, so that it never depends on what
//! the peer kept.
//!
//! Not here: what the fields mean (`engine::head`).

mod decoder;
mod encoder;
mod huffman;
mod table;

pub(crate) use decoder::{Decoder, ListSize};
pub(crate) use encoder::Encoder;

/// RFC 7541 §4.1: what an entry costs besides its name and value.
const ENTRY_OVERHEAD_BYTES: usize = 32;
/// RFC 9113 §6.5.2: the table size that holds until a SETTINGS frame says otherwise.
pub(crate) const DEFAULT_TABLE_BYTES: usize = 4096;

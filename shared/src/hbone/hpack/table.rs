//! The static table (RFC 7541 Appendix A) and the dynamic table of a decoder.

use std::collections::VecDeque;

use super::{DEFAULT_TABLE_BYTES, ENTRY_OVERHEAD_BYTES};

/// A field of the static table; index 1 is the first.
#[rustfmt::skip]
pub(super) const STATIC: [(&str, &str); 61] = [
    (":authority", ""), (":method", "GET"), (":method", "POST"), (":path", "/"),
    (":path", "/index.html"), (":scheme", "http"), (":scheme", "https"), (":status", "200"),
    (":status", "204"), (":status", "206"), (":status", "304"), (":status", "400"),
    (":status", "404"), (":status", "500"), ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"), ("accept-language", ""), ("accept-ranges", ""),
    ("accept", ""), ("access-control-allow-origin", ""), ("age", ""), ("allow", ""),
    ("authorization", ""), ("cache-control", ""), ("content-disposition", ""),
    ("content-encoding", ""), ("content-language", ""), ("content-length", ""),
    ("content-location", ""), ("content-range", ""), ("content-type", ""), ("cookie", ""),
    ("date", ""), ("etag", ""), ("expect", ""), ("expires", ""), ("from", ""), ("host", ""),
    ("if-match", ""), ("if-modified-since", ""), ("if-none-match", ""), ("if-range", ""),
    ("if-unmodified-since", ""), ("last-modified", ""), ("link", ""), ("location", ""),
    ("max-forwards", ""), ("proxy-authenticate", ""), ("proxy-authorization", ""), ("range", ""),
    ("referer", ""), ("refresh", ""), ("retry-after", ""), ("server", ""), ("set-cookie", ""),
    ("strict-transport-security", ""), ("transfer-encoding", ""), ("user-agent", ""), ("vary", ""),
    ("via", ""), ("www-authenticate", ""),
];

/// What the peer asked us to remember, newest first, never more than `limit_bytes`.
#[derive(Debug)]
pub(super) struct Dynamic {
    entries: VecDeque<Entry>,
    size_bytes: usize,
    limit_bytes: usize,
}

#[derive(Debug)]
struct Entry {
    bytes: Box<[u8]>,
    name_bytes: usize,
}

impl Dynamic {
    pub(super) fn new() -> Self {
        Self { entries: VecDeque::new(), size_bytes: 0, limit_bytes: DEFAULT_TABLE_BYTES }
    }

    /// The field at `index` of the joint index space; `None` when there is none.
    pub(super) fn field(&self, index: usize) -> Option<(&[u8], &[u8])> {
        if let Some((name, value)) = STATIC.get(index.checked_sub(1)?) {
            return Some((name.as_bytes(), value.as_bytes()));
        }
        let entry = self.entries.get(index - STATIC.len() - 1)?;
        Some(entry.bytes.split_at(entry.name_bytes))
    }

    /// RFC 7541 §4.4: an entry larger than the table empties it and is not kept.
    pub(super) fn insert(&mut self, name: &[u8], value: &[u8]) {
        let cost = name.len() + value.len() + ENTRY_OVERHEAD_BYTES;
        if cost > self.limit_bytes {
            self.entries.clear();
            self.size_bytes = 0;
            return;
        }
        self.evict(self.limit_bytes - cost);
        let bytes = [name, value].concat().into_boxed_slice();
        self.entries.push_front(Entry { bytes, name_bytes: name.len() });
        self.size_bytes += cost;
    }

    pub(super) fn resize(&mut self, limit_bytes: usize) {
        self.limit_bytes = limit_bytes;
        self.evict(limit_bytes);
    }

    fn evict(&mut self, target_bytes: usize) {
        while self.size_bytes > target_bytes {
            let Some(entry) = self.entries.pop_back() else { break };
            self.size_bytes -= entry.bytes.len() + ENTRY_OVERHEAD_BYTES;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_entries_leave_when_the_table_is_full() {
        let mut table = Dynamic::new();
        table.resize(100);
        table.insert(b"a", b"1");
        table.insert(b"b", b"2");
        table.insert(b"c", b"3");
        assert_eq!(table.field(62), Some((&b"c"[..], &b"3"[..])));
        assert_eq!(table.field(63), Some((&b"b"[..], &b"2"[..])));
        assert_eq!(table.field(64), None);
    }

    #[test]
    fn an_entry_that_cannot_fit_empties_the_table() {
        let mut table = Dynamic::new();
        table.insert(b"a", b"1");
        table.insert(&[b'x'; 5000], b"");
        assert_eq!(table.field(62), None);
        assert_eq!(table.field(0), None);
    }
}

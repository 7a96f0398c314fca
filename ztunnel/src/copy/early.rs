//! The first bytes of a connection, kept while they may have to be sent to another endpoint.
//!
//! Invariants: whole or nothing: what is beyond the bound, or was followed by an answer, is not kept.
//! Source: design D8.

/// 16 KiB: a request's head and a short body. Larger holds more memory for each new connection
/// until its first answer.
const MOST_BYTES: usize = 16 << 10;

/// All that was read of a connection so far, or the knowledge that it is no longer all.
#[derive(Debug, Default)]
pub(super) struct Early(Option<Vec<u8>>);

impl Early {
    /// Keeps what follows `read`.
    pub(super) fn after(read: Vec<u8>) -> Self {
        Self(Some(read))
    }

    /// More was read.
    pub(super) fn add(&mut self, read: &[u8]) {
        let Some(all) = &mut self.0 else { return };
        if all.len() + read.len() > MOST_BYTES {
            return self.forget();
        }
        all.extend_from_slice(read);
    }

    /// It must not be sent again.
    pub(super) fn forget(&mut self) {
        self.0 = None;
    }

    /// Whether it can be sent again.
    pub(super) fn is_whole(&self) -> bool {
        self.0.is_some()
    }

    /// All of it.
    pub(super) fn take(&mut self) -> Option<Vec<u8>> {
        self.0.take()
    }
}

//! Bytes that are made and checked as they pass, so that a gigabyte needs no memory.

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

const BLOCK_BYTES: usize = 64 << 10;

/// A stream of bytes told by its seed: noise in which each block carries its number, so that
/// nothing lost, doubled, swapped or taken from another stream looks right.
pub(crate) struct Content {
    block: Vec<u8>,
    length: u64,
    at: u64,
}

impl Content {
    pub(crate) fn new(seed: u64, length: u64) -> Self {
        let mut block = vec![0; BLOCK_BYTES];
        fastrand::Rng::with_seed(seed).fill(&mut block);
        block[..8].fill(0);
        Self { block, length, at: 0 }
    }

    /// What comes next, as far as it is made; empty at the end.
    fn rest(&self) -> &[u8] {
        let from = (self.at % BLOCK_BYTES as u64) as usize;
        let left = usize::try_from(self.length - self.at).unwrap_or(usize::MAX);
        &self.block[from..BLOCK_BYTES.min(from.saturating_add(left))]
    }

    fn advance(&mut self, bytes: usize) {
        self.at += bytes as u64;
        let number = self.at / BLOCK_BYTES as u64;
        self.block[..8].copy_from_slice(&number.to_le_bytes());
    }

    /// Sends it to the end.
    pub(crate) async fn send(mut self, to: &mut (impl AsyncWrite + Unpin)) -> anyhow::Result<()> {
        while !self.rest().is_empty() {
            let sent = to.write(self.rest()).await?;
            anyhow::ensure!(sent > 0, "nothing more is taken after {} bytes", self.at);
            self.advance(sent);
        }
        Ok(())
    }

    /// Receives exactly this, and no more than that is read.
    pub(crate) async fn receive(
        mut self,
        from: &mut (impl AsyncRead + Unpin),
    ) -> anyhow::Result<()> {
        let mut buffer = vec![0; BLOCK_BYTES];
        while self.at < self.length {
            let room = buffer.len().min(usize::try_from(self.length - self.at)?);
            let count = from.read(&mut buffer[..room]).await?;
            anyhow::ensure!(count > 0, "ended after {} of {} bytes", self.at, self.length);
            self.check(&buffer[..count])?;
        }
        Ok(())
    }

    fn check(&mut self, mut bytes: &[u8]) -> anyhow::Result<()> {
        while !bytes.is_empty() {
            let rest = self.rest();
            let count = bytes.len().min(rest.len());
            anyhow::ensure!(rest[..count] == bytes[..count], "wrong bytes near {}", self.at);
            self.advance(count);
            bytes = &bytes[count..];
        }
        Ok(())
    }
}

/// The other side has ended in order, and nothing came before its end.
pub(crate) async fn ended(from: &mut (impl AsyncRead + Unpin)) -> anyhow::Result<()> {
    let count = from.read(&mut [0; 64]).await?;
    anyhow::ensure!(count == 0, "{count} bytes where the end should be");
    Ok(())
}

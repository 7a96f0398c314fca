//! A connection that stopped speaking HTTP: bytes both ways until both sides have ended.

use bytes::Bytes;
use shared::hbone::Stream;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, copy_bidirectional};
use tokio::sync::oneshot;

use crate::upstream::Io;

/// The endpoint's side of an upgrade.
pub(crate) struct Upgraded {
    /// Comes when HTTP has ended on it, with what was read past that end.
    connection: oneshot::Receiver<(Io, Bytes)>,
}

impl Upgraded {
    pub(super) fn new(connection: oneshot::Receiver<(Io, Bytes)>) -> Self {
        Self { connection }
    }

    /// Carries bytes between the client, of whom `early` was read already, and the endpoint.
    pub(crate) async fn carry(self, mut client: Stream, early: Bytes) {
        self.carry_between(&mut client, early).await;
    }

    /// The same with any stream of the client's.
    pub(crate) async fn carry_between(
        self,
        client: &mut (impl AsyncRead + AsyncWrite + Unpin),
        early: Bytes,
    ) {
        let Ok((mut endpoint, greeting)) = self.connection.await else { return };
        let carried = async {
            endpoint.write_all(&early).await?;
            client.write_all(&greeting).await?;
            client.flush().await?;
            copy_bidirectional(client, &mut endpoint).await
        };
        if let Err(error) = carried.await {
            tracing::debug!(%error, "upgraded connection ended");
        }
    }
}

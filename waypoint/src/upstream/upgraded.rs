//! A connection that stopped speaking HTTP: bytes both ways until both sides have ended.

use bytes::Bytes;
use shared::authz::Denial;
use shared::hbone::{Reason, Stream};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, copy_bidirectional};
use tokio::sync::oneshot;

use crate::permits::Watch;
use crate::upstream::Io;

/// The endpoint's side of an upgrade.
pub(crate) struct Upgraded {
    /// Comes when HTTP has ended on it, with what was read past that end.
    connection: oneshot::Receiver<(Io, Bytes)>,
    /// Ends it when it is no longer allowed.
    watch: Option<Watch>,
}

impl Upgraded {
    pub(super) fn new(connection: oneshot::Receiver<(Io, Bytes)>) -> Self {
        Self { connection, watch: None }
    }

    /// It lasts only as long as policies allow it.
    pub(crate) fn watched(self, watch: Watch) -> Self {
        Self { watch: Some(watch), ..self }
    }

    /// Carries bytes between the client, of whom `early` was read already, and the endpoint.
    pub(crate) async fn carry(self, mut client: Stream, early: Bytes) {
        if self.carry_between(&mut client, early).await.is_err() {
            client.reset(Reason::CANCEL);
        }
    }

    /// The same with any stream of the client's.
    ///
    /// # Errors
    /// It is no longer allowed.
    pub(crate) async fn carry_between(
        self,
        client: &mut (impl AsyncRead + AsyncWrite + Unpin),
        early: Bytes,
    ) -> Result<(), Denial> {
        let Ok((mut endpoint, greeting)) = self.connection.await else { return Ok(()) };
        let carried = async {
            endpoint.write_all(&early).await?;
            client.write_all(&greeting).await?;
            client.flush().await?;
            copy_bidirectional(client, &mut endpoint).await
        };
        let carried = match self.watch {
            None => carried.await,
            Some(mut watch) => match watch.during(carried).await {
                Ok(carried) => carried,
                Err(denial) => {
                    watch.tell(&denial);
                    return Err(denial);
                }
            },
        };
        if let Err(error) = carried {
            tracing::debug!(%error, "upgraded connection ended");
        }
        Ok(())
    }
}

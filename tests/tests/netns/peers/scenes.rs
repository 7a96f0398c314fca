//! What happens on a line, whoever stands in its middle.

use super::content::{Content, ended};
use super::line::Line;

/// One connection carries a word each way and ends.
pub(super) async fn greeting(line: &Line<'_>) -> anyhow::Result<()> {
    let (mut client, mut server) = line.pair().await?;
    Content::new(1, 5).send(&mut client).await?;
    Content::new(1, 5).receive(&mut server).await?;
    Content::new(2, 7).send(&mut server).await?;
    Content::new(2, 7).receive(&mut client).await?;
    drop(client);
    ended(&mut server).await
}

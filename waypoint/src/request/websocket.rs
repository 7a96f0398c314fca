//! The two ways of asking for a WebSocket, and the one way of answering.
//!
//! Towards the endpoint it is always the upgrade of an HTTP/1.1 connection (RFC 6455); the client may
//! use a stream of HTTP/2 (RFC 8441), for which we then make and check the key.

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, UPGRADE};
use http::{Response, StatusCode};
use hyper_util::rt::TokioIo;

use crate::request::admit::Upgrade;
use crate::request::{Body, Failure};
use crate::tunnel::http::Switch;
use crate::upstream::Upgraded;

/// RFC 6455 §1.3.
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// A new `Sec-WebSocket-Key`.
pub(super) fn key() -> [u8; 24] {
    let mut key = [0; 24];
    // 16 bytes are 24 characters, always.
    let _ = STANDARD.encode_slice(fastrand::u128(..).to_ne_bytes(), &mut key);
    key
}

/// Turns the endpoint's yes to an upgrade into the client's, and starts to carry bytes.
///
/// # Errors
/// [`Failure::UpgradeRefused`] when the answer is yes and wrong.
pub(super) fn switch(
    upgrade: Upgrade,
    switch: Option<Switch>,
    upgraded: Upgraded,
    mut response: Response<Body>,
    key: Option<Vec<u8>>,
) -> Result<Response<Body>, Failure> {
    match (upgrade, switch) {
        (Upgrade::Http1, Some(switch)) => {
            switch.replace(Some(upgraded));
            Ok(response)
        }
        (Upgrade::Http2 { client, .. }, _) => {
            let shown = response.headers_mut().remove(SEC_WEBSOCKET_ACCEPT);
            let expected = accept(&key.unwrap_or_default());
            if shown.is_none_or(|shown| shown.as_bytes() != expected.as_bytes()) {
                return Err(Failure::UpgradeRefused("it did not read the key"));
            }
            response.headers_mut().remove(CONNECTION);
            response.headers_mut().remove(UPGRADE);
            *response.status_mut() = StatusCode::OK;
            // Ends with its stream, which ends with its connection.
            tokio::task::spawn_local(async move {
                if let Ok(client) = client.await {
                    // A denial is told already, and dropping the stream resets it.
                    upgraded.carry_between(&mut TokioIo::new(client), Bytes::new()).await.ok();
                }
            });
            Ok(response)
        }
        (Upgrade::Http1, None) => Err(Failure::UpgradeRefused("the client speaks http/2")),
    }
}

fn accept(key: &[u8]) -> String {
    STANDARD.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, &[key, GUID].concat()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_of_the_rfc_is_accepted_as_in_the_rfc() {
        // RFC 6455 §1.3.
        assert_eq!(accept(b"dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn keys_are_16_random_bytes() {
        let key = key();
        assert_eq!(STANDARD.decode(key).unwrap().len(), 16);
        assert_ne!(key, super::key());
    }
}

//! The server name of a TLS handshake that passes through.

use std::future::poll_fn;

use rustls::server::Acceptor;
use shared::hbone::{Stream, StreamError};

use crate::tunnel::sniff::Peeked;

/// A client hello fits, with whatever extensions.
const MOST_BYTES: usize = 64 << 10;

/// The name that the client asks for, if what it sends begins with a TLS handshake and names one.
/// The bytes stay in `stream`. Cancel safe.
///
/// # Errors
/// The stream ended before that could be told.
pub(super) async fn server_name(stream: &mut Stream) -> Result<Option<Box<str>>, StreamError> {
    let mut peeked = Peeked::new(stream);
    let mut acceptor = Acceptor::default();
    loop {
        let received = poll_fn(|cx| peeked.stream.poll_recv(cx)).await?;
        let Some(received) = received else { return Ok(None) };
        peeked.bytes.extend_from_slice(&received);
        if acceptor.read_tls(&mut &received[..]).is_err() || peeked.bytes.len() > MOST_BYTES {
            return Ok(None);
        }
        match acceptor.accept() {
            Ok(Some(accepted)) => {
                let hello = accepted.client_hello();
                return Ok(hello.server_name().map(Into::into));
            }
            Ok(None) => {}
            // No TLS, or none that we know: the endpoint will say so.
            Err(_) => return Ok(None),
        }
    }
}

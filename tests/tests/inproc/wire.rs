//! HTTP/2 by hand: frames that no library would write, and what comes back.

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const CONTINUATION: u8 = 9;

pub(crate) const END_HEADERS: u8 = 4;

/// RFC 9113 §7: the peer is doing what it should not do so often.
pub(crate) const ENHANCE_YOUR_CALM: u32 = 11;

/// RFC 9113 §4.1.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("short");
    let mut frame = length.to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// What every client begins with.
pub(crate) fn greeting() -> Vec<u8> {
    [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat()
}

/// A header block that asks for a tunnel (RFC 7541 §6.2.2, names from the static table).
pub(crate) fn connect_block(authority: &str) -> Vec<u8> {
    let mut block = vec![0x02, 7];
    block.extend(b"CONNECT");
    block.extend([0x01, u8::try_from(authority.len()).expect("short")]);
    block.extend(authority.as_bytes());
    block
}

/// Everything until the peer's end, however it ends.
pub(crate) async fn rest(stream: &mut (impl AsyncRead + Unpin)) -> Vec<u8> {
    let mut all = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(count @ 1..) = stream.read(&mut buffer).await {
        all.extend(&buffer[..count]);
    }
    all
}

/// Writes `bytes`; a peer that has hung up by then is no failure.
pub(crate) async fn send(stream: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) {
    let sent = async {
        stream.write_all(bytes).await?;
        stream.flush().await
    };
    // The peer's last words say why.
    let _ = sent.await;
}

/// Code and words of the last GOAWAY among `bytes`.
pub(crate) fn goaway(mut bytes: &[u8]) -> Option<(u32, String)> {
    let mut found = None;
    while bytes.len() >= 9 {
        let length = u32::from_be_bytes([0, bytes[0], bytes[1], bytes[2]]) as usize;
        let kind = bytes[3];
        let payload = bytes.get(9..9 + length)?;
        if kind == GOAWAY && payload.len() >= 8 {
            let code = u32::from_be_bytes([payload[4], payload[5], payload[6], payload[7]]);
            found = Some((code, String::from_utf8_lossy(&payload[8..]).into_owned()));
        }
        bytes = &bytes[9 + length..];
    }
    found
}

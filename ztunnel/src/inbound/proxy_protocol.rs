//! The PROXY protocol version 2 header that some applications want (spec L4 §4.4 item 4).

use std::net::SocketAddr;

use shared::identity::SpiffeId;

/// Twelve bytes that no other protocol begins with.
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Version 2, command PROXY.
const VERSION_COMMAND: u8 = 0x21;
/// TLV type of the peer's identity (Istio).
const IDENTITY: u8 = 0xD0;

/// The header for a connection from `source` to `destination`, by `peer`.
pub(super) fn header(
    source: SocketAddr,
    destination: SocketAddr,
    peer: Option<&SpiffeId>,
) -> Vec<u8> {
    let mut body = Vec::with_capacity(64);
    let family = match (source, destination) {
        (SocketAddr::V4(source), SocketAddr::V4(destination)) => {
            body.extend(source.ip().octets());
            body.extend(destination.ip().octets());
            0x11
        }
        (SocketAddr::V6(source), SocketAddr::V6(destination)) => {
            body.extend(source.ip().octets());
            body.extend(destination.ip().octets());
            0x21
        }
        // Unspecified: the addresses do not fit into one family.
        _ => 0x00,
    };
    if family != 0 {
        body.extend(source.port().to_be_bytes());
        body.extend(destination.port().to_be_bytes());
    }
    if let Some(peer) = peer {
        let text = peer.to_string();
        // Three DNS-1123 names: far below 64 KiB.
        let length = u16::try_from(text.len()).unwrap_or(u16::MAX);
        body.push(IDENTITY);
        body.extend(length.to_be_bytes());
        body.extend(&text.as_bytes()[..usize::from(length)]);
    }
    let length = u16::try_from(body.len()).unwrap_or(u16::MAX);
    let mut header = SIGNATURE.to_vec();
    header.extend([VERSION_COMMAND, family]);
    header.extend(length.to_be_bytes());
    header.extend(body);
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn addresses_and_identity_follow_the_signature() {
        let id: SpiffeId = "spiffe://td/ns/a/sa/b".parse().unwrap();
        let header = header(at("1.2.3.4:5"), at("6.7.8.9:256"), Some(&id));
        assert_eq!(&header[..12], SIGNATURE);
        assert_eq!(&header[12..16], [0x21, 0x11, 0, 12 + 3 + 21]);
        assert_eq!(&header[16..28], [1, 2, 3, 4, 6, 7, 8, 9, 0, 5, 1, 0]);
        assert_eq!(&header[28..31], [0xD0, 0, 21]);
        assert_eq!(&header[31..], b"spiffe://td/ns/a/sa/b");
    }

    #[test]
    fn mixed_families_are_unspecified() {
        let header = header(at("1.2.3.4:5"), at("[::1]:6"), None);
        assert_eq!(&header[12..], [0x21, 0x00, 0, 0]);
    }
}

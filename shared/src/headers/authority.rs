//! `:authority` of a tunnel request: where it is to lead.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

/// Longer authorities are refused: a host name has 253 bytes (RFC 1035 §2.3.4), a port five.
const LONGEST_BYTES: usize = 260;

/// A CONNECT target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Authority {
    /// An address, never an IPv4 one in IPv6 form.
    Address(SocketAddr),
    /// A service and one of its ports.
    Host(Box<str>, u16),
}

/// Not `address:port` or `host:port`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid authority: {0:?}")]
pub struct BadAuthority(Box<str>);

impl FromStr for Authority {
    type Err = BadAuthority;

    fn from_str(text: &str) -> Result<Self, BadAuthority> {
        let invalid = || {
            let shown = text.chars().take(LONGEST_BYTES).collect::<String>();
            BadAuthority(shown.into())
        };
        if text.len() > LONGEST_BYTES {
            return Err(invalid());
        }
        if let Ok(address) = text.parse::<SocketAddr>() {
            return (address.port() > 0)
                .then(|| {
                    Self::Address(SocketAddr::new(address.ip().to_canonical(), address.port()))
                })
                .ok_or_else(invalid);
        }
        let (host, port) = text.rsplit_once(':').ok_or_else(invalid)?;
        let digits = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
        let port = port.parse().ok().filter(|port| digits && *port > 0).ok_or_else(invalid)?;
        let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
        if host.is_empty() || !host.bytes().all(legal) {
            return Err(invalid());
        }
        Ok(Self::Host(host.into(), port))
    }
}

impl fmt::Display for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => write!(f, "{address}"),
            Self::Host(host, port) => write!(f, "{host}:{port}"),
        }
    }
}

//! The tunnel: CONNECT streams over HTTP/2 over mutual TLS.

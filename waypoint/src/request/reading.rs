//! How requests of HTTP/1.1 are read and written on, step by step: what `request` and `tunnel` do in
//! one go, for whoever checks that (the fuzz targets).

use http::Request;
use http::request::Parts;
use hyper::body::Incoming;
use hyper::server::conn::http1;

use crate::node::Config;
use crate::request::{BadRequest, admit, forward};
use crate::upstream::Version;

/// Reads the connections of clients.
pub fn parser(config: &Config) -> http1::Builder {
    let mut parser = http1::Builder::new();
    parser
        // Both limits are the pace's (`tunnel::pace`).
        .header_read_timeout(None)
        .max_headers(config.max_headers)
        .max_header_size(config.max_head_bytes)
        // A client that ends is gone: a request for nobody must not occupy an endpoint.
        .half_close(false);
    parser
}

/// Checks a request and makes it normal.
///
/// # Errors
/// What is wrong with it.
pub fn admit(request: &mut Request<Incoming>, config: &Config) -> Result<(), BadRequest> {
    admit::admit(request, config).map(drop)
}

/// Makes a request that was admitted ready for an endpoint that speaks HTTP/1.1.
pub fn to_upstream(parts: &mut Parts, has_body: bool) {
    forward::to_upstream(parts, Version::Http1, false);
    forward::frame(parts, has_body);
}

//! The tunnel against proxies that other people wrote: Envoy and nghttp2, at either end.

mod content;
mod envoy;
mod line;
mod scenes;

pub(crate) use envoy::CASES as ENVOY;

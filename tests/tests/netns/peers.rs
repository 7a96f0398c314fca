//! The tunnel against proxies that other people wrote: Envoy and nghttp2, at either end.

mod content;
mod envoy;
mod goaway;
mod line;
mod mesh;
mod scenes;

pub(crate) use envoy::CASES as ENVOY;

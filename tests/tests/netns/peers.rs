//! The tunnel against proxies that other people wrote: Envoy and nghttp2, at either end.

mod content;
mod envoy;
mod goaway;
mod line;
mod mesh;
mod nghttpx;
mod node;
mod scenes;

pub(crate) use envoy::CASES as ENVOY;
pub(crate) use nghttpx::CASES as NGHTTPX;
pub(crate) use node::CASES as NODE;

//! stub
use http::request::Parts;
use http::{HeaderMap, HeaderValue, StatusCode};
use shared::mesh::ServiceKey;
use std::sync::Arc;
pub struct Filters {
    pub request_headers: HeaderEdits,
    pub response_headers: HeaderEdits,
    pub redirect: Option<Redirect>,
    pub rewrite: Option<Rewrite>,
    pub mirrors: Vec<Mirror>,
    pub cors: Option<Cors>,
    pub refused: Option<Arc<str>>,
}
pub struct HeaderEdits;
impl HeaderEdits {
    pub fn apply(&self, _h: &mut HeaderMap) {}
}
pub struct Redirect;
impl Redirect {
    pub fn location(&self, _r: &Parts, _p: Option<&str>, _port: u16) -> (StatusCode, HeaderValue) {
        (StatusCode::FOUND, HeaderValue::from_static(""))
    }
}
pub struct Rewrite;
impl Rewrite {
    pub fn apply(&self, _r: &mut Parts, _p: Option<&str>) {}
}
pub struct Mirror {
    pub backend: (ServiceKey, u16),
}
impl Mirror {
    pub fn wants(&self, _d: u64) -> bool {
        false
    }
}
pub struct Cors;
impl Cors {
    pub fn preflight(&self, _r: &Parts) -> Option<(StatusCode, HeaderMap)> {
        None
    }
    pub fn decorate(&self, _o: Option<&HeaderValue>, _h: &mut HeaderMap) {}
}

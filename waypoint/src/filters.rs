//! What a rule does to requests and responses. Pure: no I/O, no clock, no chance of its own.
//!
//! The order is fixed, whatever the order in the route (spec L7 §2.5): refused, CORS preflight,
//! request headers, redirect, direct answer or rewrite, mirrors; then the chosen backend's request headers. Of
//! responses: the backend's headers, the rule's headers, CORS.
//! Not here: reading and checking (`shared::feed`), sending (`upstream`).

mod cors;
mod headers;
mod mirror;
mod path;
mod redirect;
mod rewrite;

use std::sync::Arc;

use shared::mesh::{self, DirectResponse, RouteFilters};

pub use cors::Cors;
pub use headers::HeaderEdits;
pub use mirror::Mirror;
pub use redirect::Redirect;
pub use rewrite::{NoPath, Rewrite};

/// The filters of one rule.
#[derive(Debug, Clone, Default)]
pub struct Filters {
    /// Applied to requests.
    pub request_headers: HeaderEdits,
    /// Applied to responses.
    pub response_headers: HeaderEdits,
    /// Requests are answered with another address.
    pub redirect: Option<Box<Redirect>>,
    /// Requests are sent under another address.
    pub rewrite: Option<Box<Rewrite>>,
    /// Requests are answered so.
    pub direct: Option<Box<DirectResponse>>,
    /// Backends that get copies.
    pub mirrors: Box<[Mirror]>,
    /// Browsers of other origins are answered.
    pub cors: Option<Box<Cors>>,
    /// Every request is answered 500, and why.
    pub refused: Option<Arc<str>>,
}

impl Filters {
    /// Makes the filters of a rule ready. A mirror without a backend is left out.
    pub fn new(filters: &RouteFilters, mirrors: &[mesh::Mirror]) -> Self {
        Self {
            request_headers: HeaderEdits::of_requests(&filters.request_headers),
            response_headers: HeaderEdits::of_responses(&filters.response_headers),
            redirect: filters.redirect.clone().map(|one| Box::new(Redirect::new(one))),
            rewrite: filters.rewrite.clone().map(|one| Box::new(Rewrite::new(one))),
            direct: filters.direct.clone().map(Box::new),
            mirrors: mirrors.iter().filter_map(Mirror::new).collect(),
            cors: filters.cors.clone().map(|one| Box::new(Cors::new(one))),
            refused: filters.refused.clone(),
        }
    }
}

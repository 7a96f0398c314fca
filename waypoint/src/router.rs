//! stub
use crate::filters::Filters;
use http::request::Parts;
use shared::mesh::{Mesh, Service, ServiceKey};
use std::sync::Arc;
use std::time::Duration;
#[derive(Default)]
pub struct Router;
impl Router {
    pub fn table(&self, _m: &Arc<Mesh>, _s: &Arc<Service>) -> Arc<Table> {
        Arc::new(Table)
    }
}
pub struct Table;
impl Table {
    pub fn route<'t>(&'t self, _p: u16, _n: Option<&str>, _r: &Parts) -> Routed<'t> {
        Routed::Default
    }
    pub fn tcp(&self, _p: u16, _s: Option<&str>) -> Option<&Rule> {
        None
    }
}
pub enum Routed<'t> {
    Default,
    Rule(Matched<'t>),
    NoMatch,
}
pub struct Matched<'t> {
    pub rule: &'t Rule,
    pub prefix: Option<&'t str>,
}
pub struct Rule {
    pub route: Arc<str>,
    pub filters: Filters,
    pub timeouts: Timeouts,
    pub retry: Option<Retry>,
}
pub struct Timeouts {
    pub request: Option<Duration>,
    pub backend_request: Option<Duration>,
}
#[derive(Debug)]
pub struct Retry {
    pub attempts: u32,
    pub codes: Vec<u16>,
    pub backoff: Option<Duration>,
    pub delivered: bool,
}
pub struct Backend {
    pub to: (ServiceKey, u16),
    pub filters: Filters,
}
pub enum Choice<'a> {
    Backend(&'a Backend),
    Invalid(&'a str),
    NoBackends,
}
impl Rule {
    pub fn choose(&self, _d: u64) -> Choice<'_> {
        Choice::NoBackends
    }
}

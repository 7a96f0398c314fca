//! `route`, `mirror` and `mirrors`: where requests go.

use std::sync::Arc;

use crate::feed::fields::Fields;
use crate::feed::intern::Interner;
use crate::feed::object::destination::{is_host, values};
use crate::feed::verdict::Cause;
use crate::mesh::{RouteFilters, Share};

use super::{MOST_ENTRIES, headers, matches};

/// A destination, by the name of a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HostRef {
    /// Path of the reference, for remarks.
    pub(crate) field: Box<str>,
    /// Without dots it is of the object's namespace.
    pub(crate) host: Arc<str>,
    pub(crate) subset: Option<Arc<str>>,
    /// The only one of the service, or else the one that was dialled, when it is not said.
    pub(crate) port: Option<u16>,
}

/// A destination with its share.
#[derive(Debug, Clone)]
pub(crate) struct HostRoute {
    pub(crate) to: HostRef,
    pub(crate) weight: u32,
    pub(crate) filters: Arc<RouteFilters>,
}

/// A destination that gets copies.
#[derive(Debug, Clone)]
pub(crate) struct HostMirror {
    pub(crate) to: HostRef,
    pub(crate) share: Share,
}

impl HostRef {
    /// Nothing when it names no host, which is reported.
    fn read(fields: &Fields<'_>, intern: &mut Interner) -> Option<Self> {
        let port = fields.fields("port").and_then(|port| matches::port(&port, "number"));
        let subset = fields.text("subset").filter(|text| !text.is_empty());
        let host = fields.text("host").unwrap_or("").to_ascii_lowercase();
        if host.contains('*') || !is_host(&host) {
            fields.report("host", Cause::Invalid, "must be the name of a host");
            return None;
        }
        Some(Self {
            field: fields.path().into(),
            host: intern.text(&host),
            subset: subset.map(|text| intern.text(text)),
            port,
        })
    }

    /// The `destination` of `owner`.
    fn of(owner: &Fields<'_>, intern: &mut Interner) -> Option<Self> {
        let Some(fields) = owner.fields("destination") else {
            owner.report("destination", Cause::Invalid, "must be there");
            return None;
        };
        Self::read(&fields, intern)
    }
}

/// `route`, of which entries without weight get nothing; a single one gets everything.
pub(super) fn routes(rule: &Fields<'_>, intern: &mut Interner) -> Vec<HostRoute> {
    let all = rule.at_most("route", MOST_ENTRIES);
    let alone = all.len() == 1;
    let mut routes = Vec::new();
    for fields in &all {
        let weight = values::number(fields, "weight", i32::MAX as u32).unwrap_or(0);
        let mut filters = RouteFilters::default();
        if let Some(headers) = fields.fields("headers") {
            (filters.request_headers, filters.response_headers) = headers::read(&headers);
        }
        let weight = if alone { 1 } else { weight };
        let filters = Arc::new(filters);
        routes.extend(HostRef::of(fields, intern).map(|to| HostRoute { to, weight, filters }));
    }
    if routes.len() > 1 && routes.iter().all(|route| route.weight == 0) {
        rule.report("route", Cause::Invalid, "of several destinations one needs a weight");
    }
    routes
}

/// `mirror` with its percentage, or `mirrors`.
pub(super) fn mirrors(rule: &Fields<'_>, intern: &mut Interner) -> Vec<HostMirror> {
    let mut mirrors = Vec::new();
    let share = match rule.has("mirrorPercentage") {
        true => percentage(rule, "mirrorPercentage").map(Some),
        false => whole_percent(rule, "mirrorPercent"),
    };
    if rule.has("mirror") && rule.has("mirrors") {
        rule.report("mirrors", Cause::Invalid, "mirror and mirrors exclude each other");
    }
    if let Some(fields) = rule.fields("mirror") {
        let to = HostRef::read(&fields, intern);
        let share = share.flatten().unwrap_or(Share::WHOLE);
        mirrors.extend(to.map(|to| HostMirror { to, share }));
    } else if rule.has("mirrorPercentage") || rule.has("mirrorPercent") {
        let field = if rule.has("mirrorPercent") { "mirrorPercent" } else { "mirrorPercentage" };
        rule.report(field, Cause::Unsupported, "there is no mirror");
    }
    for fields in rule.at_most("mirrors", MOST_ENTRIES) {
        let share = match fields.has("percentage") {
            true => percentage(&fields, "percentage").unwrap_or(Share::WHOLE),
            false => Share::WHOLE,
        };
        mirrors.extend(HostRef::of(&fields, intern).map(|to| HostMirror { to, share }));
    }
    mirrors
}

/// A Percent, whose value is 0 unless it is said.
pub(super) fn percentage(fields: &Fields<'_>, name: &str) -> Option<Share> {
    let percent = fields.fields(name)?;
    Some(values::share(&percent, "value").unwrap_or(Share::NOTHING))
}

/// Whole percent of old versions.
pub(super) fn whole_percent(fields: &Fields<'_>, name: &str) -> Option<Option<Share>> {
    if !fields.has(name) {
        return None;
    }
    Some(values::percent(fields, name).and_then(|percent| Share::percent(percent.into())))
}

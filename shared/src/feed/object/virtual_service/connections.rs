//! `tcp` and `tls`: where connections go.

use std::sync::Arc;

use crate::feed::fields::Fields;
use crate::feed::intern::Interner;
use crate::feed::object::destination::is_host;
use crate::feed::verdict::Cause;

use super::places::{self, HostRoute};
use super::{MOST_ENTRIES, matches};

/// A rule for connections, in which the destinations are still missing.
#[derive(Debug, Clone)]
pub(crate) struct ConnectionsRead {
    /// Path of the rule, for remarks.
    pub(crate) field: Box<str>,
    /// Any of these; never empty.
    pub(crate) matches: Vec<ConnectionMatch>,
    pub(crate) routes: Vec<HostRoute>,
}

/// What a connection must be like.
#[derive(Debug, Clone, Default)]
pub(crate) struct ConnectionMatch {
    /// Names that a handshake of TLS asks for; empty for whatever is no TLS, or any.
    pub(crate) server_names: Box<[Arc<str>]>,
    pub(crate) port: Option<u16>,
    pub(crate) source_namespace: Option<Arc<str>>,
}

/// Which of the two lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum List {
    Tls,
    Tcp,
}

pub(super) fn read(spec: &Fields<'_>, intern: &mut Interner) -> Vec<ConnectionsRead> {
    let mut all = Vec::new();
    for (list, name) in [(List::Tls, "tls"), (List::Tcp, "tcp")] {
        let rules = spec.at_most(name, MOST_ENTRIES);
        all.extend(rules.iter().filter_map(|one| rule(list, one, intern)));
    }
    all
}

/// Nothing when none of its matches can be evaluated, which is reported.
fn rule(list: List, fields: &Fields<'_>, intern: &mut Interner) -> Option<ConnectionsRead> {
    let routes = places::routes(fields, intern);
    if routes.is_empty() {
        fields.report("route", Cause::Invalid, "needs at least one destination");
    }
    let all = fields.at_most("match", MOST_ENTRIES);
    if all.is_empty() && list == List::Tls {
        fields.report("match", Cause::Invalid, "needs a match with sniHosts");
    }
    let matches = all.iter().filter_map(|one| connection(list, one, intern));
    let mut matches: Vec<_> = matches.collect();
    if all.is_empty() {
        matches.push(ConnectionMatch::default());
    }
    if matches.is_empty() {
        fields.report("", Cause::Unsupported, "none of its matches can hold, so it is left out");
        return None;
    }
    Some(ConnectionsRead { field: fields.path().into(), matches, routes })
}

/// Nothing when it cannot be evaluated, which is reported.
fn connection(list: List, fields: &Fields<'_>, intern: &mut Interner) -> Option<ConnectionMatch> {
    let reason = "is not known to a waypoint: the match is left out";
    let unknown = ["sourceLabels", "destinationSubnets", "sourceSubnet"];
    let left_out = fields.unsupported(&unknown, reason) | !matches::is_for_mesh(fields);
    let mut server_names = Vec::new();
    if list == List::Tls {
        for text in fields.texts("sniHosts") {
            let lower = text.to_ascii_lowercase();
            if is_host(&lower) {
                server_names.push(intern.text(&lower));
            } else {
                let reason = format!("\"{text}\" is no host name, *.suffix or *");
                fields.report("sniHosts", Cause::Invalid, reason);
            }
        }
        if server_names.is_empty() {
            fields.report("sniHosts", Cause::Invalid, "needs at least one name");
        }
    }
    let port = matches::port(fields, "port");
    let source_namespace = fields.text("sourceNamespace").map(|text| intern.text(text));
    let server_names = server_names.into();
    (!left_out).then_some(ConnectionMatch { server_names, port, source_namespace })
}

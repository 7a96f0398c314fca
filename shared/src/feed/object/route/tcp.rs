//! `TLSRoute` and `TCPRoute`: where connections go.

use std::sync::Arc;

use crate::feed::fields::Fields;
use crate::feed::intern::Interner;
use crate::feed::verdict::Cause;
use crate::identity::is_dns1123_subdomain;
use crate::mesh::RouteKind;

use super::{RulesRead, backends};

/// `spec.rules`, of which the first is in force, and `spec.hostnames` of a `TLSRoute`.
pub(super) fn rules(
    kind: RouteKind,
    spec: &Fields<'_>,
    namespace: &Arc<str>,
    intern: &mut Interner,
) -> RulesRead {
    let mut server_names: Vec<Arc<str>> = Vec::new();
    if kind == RouteKind::Tls {
        for text in spec.texts("hostnames") {
            let lower = text.to_ascii_lowercase();
            if is_dns1123_subdomain(lower.strip_prefix("*.").unwrap_or(&lower)) {
                server_names.push(intern.text(&lower));
            } else {
                let reason = format!("\"{text}\" is no host name");
                spec.report("hostnames", Cause::Invalid, reason);
            }
        }
        if server_names.len() > 16 {
            spec.report("hostnames", Cause::Invalid, "has more than 16 entries");
        }
    }
    let rules = spec.at_most("rules", 16);
    if rules.is_empty() {
        spec.report("rules", Cause::Invalid, "a route for connections needs a rule");
    }
    let mut first = None;
    for fields in &rules {
        fields.foreign(&["name"]);
        let backends = backends(fields, kind, namespace, intern);
        if backends.is_empty() {
            fields.report("backendRefs", Cause::Invalid, "needs at least one backend");
        }
        if first.is_none() {
            first = Some(backends);
        } else {
            let reason = "connections are all alike, so the first rule has them all";
            fields.report("", Cause::Shadowed, reason);
        }
    }
    RulesRead::Tcp { server_names: server_names.into(), backends: first.unwrap_or_default() }
}

//! What a policy for waypoints is attached to.

use std::sync::Arc;

use crate::feed::compile::Options;
use crate::feed::fields::Fields;
use crate::feed::intern::Interner;
use crate::feed::verdict::Cause;

/// Istio's bound.
const MOST: usize = 16;

/// A reference to what a policy is attached to, in the policy's own namespace.
#[derive(Debug, Clone)]
pub(crate) struct TargetRef {
    /// Path of the reference, for remarks.
    pub(crate) field: Box<str>,
    pub(crate) kind: TargetKind,
    pub(crate) name: Arc<str>,
}

/// The kinds of targets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TargetKind {
    Service,
    ServiceEntry,
    Gateway,
    /// All waypoints.
    GatewayClass,
}

/// `targetRef` and `targetRefs`. One that is none is reported and left out.
pub(super) fn read(
    spec: &Fields<'_>,
    own: &str,
    options: &Options,
    intern: &mut Interner,
) -> Vec<TargetRef> {
    let references: Vec<_> =
        spec.fields("targetRef").into_iter().chain(spec.each("targetRefs")).collect();
    if references.len() > MOST {
        spec.report("targetRefs", Cause::Invalid, format!("there are more than {MOST}"));
    }
    references.iter().filter_map(|one| target(one, own, options, intern)).collect()
}

fn target(
    fields: &Fields<'_>,
    own: &str,
    options: &Options,
    intern: &mut Interner,
) -> Option<TargetRef> {
    let (group, kind) = (fields.text("group").unwrap_or(""), fields.text("kind").unwrap_or(""));
    let Some(name) = fields.text("name") else {
        fields.report("name", Cause::Invalid, "must say which");
        return None;
    };
    if fields.text("namespace").is_some_and(|namespace| namespace != own) {
        let reason = "a policy is attached to what is in its own namespace only";
        fields.report("namespace", Cause::Invalid, reason);
        return None;
    }
    let kind = match (group, kind) {
        ("" | "core", "Service") => TargetKind::Service,
        ("networking.istio.io", "ServiceEntry") => TargetKind::ServiceEntry,
        ("gateway.networking.k8s.io", "Gateway") => TargetKind::Gateway,
        ("gateway.networking.k8s.io", "GatewayClass") if *options.root_namespace != *own => {
            let root = &options.root_namespace;
            let reason = format!("only a policy of namespace {root} is for a whole class");
            fields.report("kind", Cause::Invalid, reason);
            return None;
        }
        ("gateway.networking.k8s.io", "GatewayClass") if name == "istio-waypoint" => {
            TargetKind::GatewayClass
        }
        ("gateway.networking.k8s.io", "GatewayClass") => {
            let reason = "there is no class of waypoints but istio-waypoint";
            fields.report("name", Cause::Unsupported, reason);
            return None;
        }
        _ => {
            let reason = format!("a policy cannot be attached to a {group}/{kind}");
            fields.report("", Cause::Unsupported, reason);
            return None;
        }
    };
    Some(TargetRef { field: fields.path().into(), kind, name: intern.text(name) })
}

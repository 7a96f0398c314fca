//! References of routes to other objects.

use std::sync::Arc;

use crate::feed::fields::Fields;
use crate::feed::intern::Interner;
use crate::feed::verdict::Cause;

use super::required;

/// What a route is attached to.
#[derive(Debug, Clone)]
pub(crate) struct ParentRef {
    /// Path of the reference, for remarks.
    pub(crate) field: Box<str>,
    pub(crate) kind: ParentKind,
    pub(crate) namespace: Arc<str>,
    pub(crate) name: Arc<str>,
    /// The only port; all when neither it nor `section` is there.
    pub(crate) port: Option<u16>,
    /// Name of the only port.
    pub(crate) section: Option<Arc<str>>,
}

/// The kinds of parents that a waypoint has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ParentKind {
    Service,
    ServiceEntry,
}

impl ParentRef {
    /// Nothing when it is no parent in a mesh, which is reported.
    pub(super) fn read(fields: &Fields<'_>, own: &Arc<str>, intern: &mut Interner) -> Option<Self> {
        let group = fields.text("group").unwrap_or("gateway.networking.k8s.io");
        let kind = fields.text("kind").unwrap_or("Gateway");
        let name = required(fields, "name", 253);
        let namespace = fields.text("namespace").map(|text| intern.text(text));
        let section = fields.text("sectionName").map(|text| intern.text(text));
        let port = port(fields);
        let kind = match (group, kind) {
            ("", "Service") => ParentKind::Service,
            ("networking.istio.io", "ServiceEntry") => ParentKind::ServiceEntry,
            ("gateway.networking.k8s.io", "Gateway" | "ListenerSet") => {
                let reason = format!(
                    "traffic that enters through a {kind} is not routed here; a route for the mesh \
                     has a parent of group \"\" and kind Service"
                );
                fields.report("", Cause::Unsupported, reason);
                return None;
            }
            _ => {
                let reason = format!("a route cannot be attached to a {group}/{kind}");
                fields.report("", Cause::Unsupported, reason);
                return None;
            }
        };
        let name = name?;
        if kind == ParentKind::Service && name.contains('.') {
            let reason = "the name of a service has no dots; its namespace is a field of its own";
            fields.report("name", Cause::Invalid, reason);
            return None;
        }
        Some(Self {
            field: fields.path().into(),
            kind,
            namespace: namespace.unwrap_or_else(|| own.clone()),
            name: intern.text(name),
            port,
            section,
        })
    }
}

/// Where a route sends to.
#[derive(Debug, Clone)]
pub(crate) struct BackendRef {
    /// Path of the reference, for remarks.
    pub(crate) field: Box<str>,
    pub(crate) kind: BackendKind,
    pub(crate) namespace: Arc<str>,
    pub(crate) name: Arc<str>,
    pub(crate) port: Option<u16>,
}

/// The kinds of backends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum BackendKind {
    Service,
    ServiceEntry,
    /// The name is that of a host.
    Hostname,
    /// Group and kind of something else.
    Other(Box<str>),
}

impl BackendRef {
    /// Nothing when it has no name, which is reported.
    pub(super) fn read(fields: &Fields<'_>, own: &Arc<str>, intern: &mut Interner) -> Option<Self> {
        let group = fields.text("group").unwrap_or("");
        let kind = fields.text("kind").unwrap_or("Service");
        let name = required(fields, "name", 253);
        let namespace = fields.text("namespace");
        let port = port(fields);
        let kind = match (group, kind) {
            ("", "Service") => BackendKind::Service,
            ("networking.istio.io", "ServiceEntry") => BackendKind::ServiceEntry,
            ("networking.istio.io", "Hostname") => BackendKind::Hostname,
            _ => BackendKind::Other(format!("{group}/{kind}").into()),
        };
        if kind == BackendKind::Hostname && namespace.is_some() {
            fields.report("namespace", Cause::Invalid, "a Hostname has no namespace");
        }
        Some(Self {
            field: fields.path().into(),
            kind,
            namespace: namespace.map_or_else(|| own.clone(), |text| intern.text(text)),
            name: intern.text(name?),
            port,
        })
    }
}

fn port(fields: &Fields<'_>) -> Option<u16> {
    let port = fields.number::<u16>("port");
    if port == Some(0) {
        fields.report("port", Cause::Invalid, "must be 1 to 65535");
    }
    port
}

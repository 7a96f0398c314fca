//! `kind: ReferenceGrant`: which objects of other namespaces may refer to those of its own.

use std::sync::Arc;

use crate::feed::fields::Fields;
use crate::feed::intern::Interner;
use crate::feed::verdict::Cause;

/// Everything in `from` may refer to everything in `to`.
#[derive(Debug, Clone)]
pub(crate) struct ReferenceGrant {
    from: Box<[From]>,
    to: Box<[To]>,
}

#[derive(Debug, Clone)]
struct From {
    group: Arc<str>,
    kind: Arc<str>,
    namespace: Arc<str>,
}

#[derive(Debug, Clone)]
struct To {
    group: Arc<str>,
    kind: Arc<str>,
    /// `None` for all of the kind.
    name: Option<Arc<str>>,
}

/// A reference across namespaces.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reference<'a> {
    /// Kind of the route, which is of Gateway API.
    pub(crate) from_kind: &'a str,
    pub(crate) from_namespace: &'a str,
    pub(crate) group: &'a str,
    pub(crate) kind: &'a str,
    pub(crate) name: &'a str,
}

impl ReferenceGrant {
    pub(crate) fn read(root: &Fields<'_>, intern: &mut Interner) -> Option<Self> {
        let Some(spec) = root.fields("spec") else {
            root.report("spec", Cause::Invalid, "a grant needs a spec");
            return None;
        };
        let mut text = |fields: &Fields<'_>, name: &str| {
            let text = fields.text(name);
            if text.is_none() {
                fields.report(name, Cause::Invalid, "must be there");
            }
            intern.text(text.unwrap_or(""))
        };
        let mut from = Vec::new();
        for one in spec.each("from") {
            let (group, kind) = (text(&one, "group"), text(&one, "kind"));
            from.push(From { group, kind, namespace: text(&one, "namespace") });
        }
        let mut to = Vec::new();
        for one in spec.each("to") {
            let (group, kind) = (text(&one, "group"), text(&one, "kind"));
            let name = one.has("name").then(|| text(&one, "name"));
            to.push(To { group, kind, name: name.filter(|name| !name.is_empty()) });
        }
        for (name, is_empty) in [("from", from.is_empty()), ("to", to.is_empty())] {
            if is_empty {
                spec.report(name, Cause::Invalid, "needs at least one entry");
            }
        }
        Some(Self { from: from.into(), to: to.into() })
    }

    /// Whether a reference to an object of this grant's namespace is granted.
    pub(crate) fn allows(&self, wanted: &Reference<'_>) -> bool {
        self.from.iter().any(|from| {
            *from.group == *"gateway.networking.k8s.io"
                && *from.kind == *wanted.from_kind
                && *from.namespace == *wanted.from_namespace
        }) && self.to.iter().any(|to| {
            *to.group == *wanted.group
                && *to.kind == *wanted.kind
                && to.name.as_deref().is_none_or(|name| name == wanted.name)
        })
    }
}

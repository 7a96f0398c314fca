//! What all objects have in common: name, labels, and the labels and annotations that act.

use std::sync::Arc;

use crate::feed::fields::Fields;
use crate::feed::intern::Interner;
use crate::feed::object::destination::concurrency;
use crate::feed::object::{Kind, ObjectKey, rates};
use crate::feed::verdict::Cause;
use crate::identity::is_dns1123_subdomain;
use crate::mesh::RouteKind;

/// Labels in the order of their keys. Those of an object are shared with its equals.
pub(crate) type Labels = Arc<[(Arc<str>, Arc<str>)]>;

/// The value of a label.
pub(crate) fn label<'a>(labels: &'a Labels, key: &str) -> Option<&'a Arc<str>> {
    let at = labels.binary_search_by(|(own, _)| (**own).cmp(key)).ok()?;
    Some(&labels[at].1)
}

/// Whether `labels` has all of `wanted`; an empty selector selects everything.
pub(crate) fn has_labels(labels: &Labels, wanted: &Labels) -> bool {
    wanted.iter().all(|(key, value)| label(labels, key) == Some(value))
}

/// `istio.io/dataplane-mode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Enrolment {
    /// Not said here.
    #[default]
    Unset,
    /// `ambient`: in the mesh.
    In,
    /// `none`: not in the mesh.
    Out,
}

/// `istio.io/use-waypoint` and `istio.io/use-waypoint-namespace`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) enum UseWaypoint {
    /// Not said here.
    #[default]
    Unset,
    /// `none`: no waypoint, whatever the namespace says.
    Without,
    /// The gateway of this namespace (own when absent) and name.
    Named(Option<Arc<str>>, Arc<str>),
}

/// The common part of an object.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) key: ObjectKey,
    pub(crate) labels: Labels,
    pub(crate) created: Arc<str>,
    pub(crate) deleting: bool,
    pub(crate) enrolment: Enrolment,
    pub(crate) waypoint: UseWaypoint,
    annotations: Vec<(Arc<str>, Arc<str>)>,
}

const FOREIGN: &[&str] = &[
    "uid",
    "resourceVersion",
    "generation",
    "generateName",
    "managedFields",
    "finalizers",
    "selfLink",
    "deletionGracePeriodSeconds",
    "ownerReferences",
];

/// Prefixes whose labels and annotations are ours to account for.
const OURS: &[&str] = &["culvert.dev/", "ambient.istio.io/", "istio.io/"];

/// What requests are made of.
const LIMITED: &[Kind] = &[
    Kind::Service,
    Kind::Route(RouteKind::Http),
    Kind::Route(RouteKind::Grpc),
    Kind::VirtualService,
];

/// Labels and annotations that act, and on which kinds.
const ACTING: &[(&str, &[Kind])] = &[
    ("istio.io/dataplane-mode", &[Kind::Namespace, Kind::Pod]),
    ("istio.io/use-waypoint", &[Kind::Namespace, Kind::Pod, Kind::Service, Kind::ServiceEntry]),
    (
        "istio.io/use-waypoint-namespace",
        &[Kind::Namespace, Kind::Pod, Kind::Service, Kind::ServiceEntry],
    ),
    ("istio.io/waypoint-for", &[Kind::Gateway]),
    ("ambient.istio.io/xfcc-include-client-identity", &[Kind::Gateway]),
    ("istio.io/dry-run", &[Kind::AuthorizationPolicy]),
    ("istio.io/reroute-virtual-interfaces", &[Kind::Pod]),
    ("ambient.istio.io/bypass-inbound-capture", &[Kind::Pod]),
    ("culvert.dev/netns", &[Kind::Pod]),
    ("culvert.dev/require-waypoint", &[Kind::Pod]),
    ("culvert.dev/outlier-latency", &[Kind::DestinationRule]),
    ("culvert.dev/outlier-success-rate", &[Kind::DestinationRule]),
    ("culvert.dev/retry-delivered", &[Kind::Route(RouteKind::Http), Kind::VirtualService]),
    (rates::TOGETHER, LIMITED),
    (rates::PER_CALLER, LIMITED),
    (concurrency::ANNOTATION, &[Kind::DestinationRule]),
];

/// Ours, but written by control planes for themselves.
const NOTES: &[&str] = &[
    "ambient.istio.io/redirection",
    "istio.io/rev",
    "istio.io/tag",
    "istio.io/config",
    "istio.io/gateway-name",
    "istio.io/enable-inference-extproc",
];

impl Head {
    /// Reads `metadata`; nothing when the object has no usable name.
    pub(crate) fn read(root: &Fields<'_>, kind: Kind, intern: &mut Interner) -> Option<Self> {
        let Some(meta) = root.fields("metadata") else {
            root.report("metadata", Cause::Invalid, "an object needs metadata with a name");
            return None;
        };
        meta.foreign(FOREIGN);
        let name = Self::name(&meta, "name")?;
        let namespace = match meta.text("namespace") {
            None if kind.has_namespace() => {
                meta.report("namespace", Cause::Default, "no namespace; taken as \"default\"");
                "default"
            }
            Some(_) if kind.has_namespace() => Self::name(&meta, "namespace")?,
            Some(_) | None => "",
        };
        let deleting = meta.text("deletionTimestamp").is_some();
        let created = intern.text(meta.text("creationTimestamp").unwrap_or(""));
        let namespace = intern.text(namespace);
        let key = ObjectKey { kind: kind.name(), namespace, name: intern.text(name) };
        let labels = texts(&meta, "labels", intern);
        let annotations = texts(&meta, "annotations", intern);
        account(&meta, kind);
        let mut head = Self {
            key,
            labels: intern.labels(labels),
            created,
            deleting,
            enrolment: Enrolment::Unset,
            waypoint: UseWaypoint::Unset,
            annotations,
        };
        head.enrolment = head.read_enrolment(&meta);
        head.waypoint = head.read_waypoint();
        Some(head)
    }

    /// The value of an annotation.
    pub(crate) fn annotation(&self, key: &str) -> Option<&Arc<str>> {
        self.annotations.iter().find(|(own, _)| **own == *key).map(|(_, value)| value)
    }

    /// Whether an annotation says `"true"`.
    pub(crate) fn is_annotated(&self, key: &str) -> bool {
        self.annotation(key).is_some_and(|value| **value == *"true")
    }

    /// The value of a label.
    pub(crate) fn label(&self, key: &str) -> Option<&Arc<str>> {
        label(&self.labels, key)
    }

    fn name<'a>(meta: &Fields<'a>, field: &str) -> Option<&'a str> {
        let name = meta.text(field);
        if !name.is_some_and(is_dns1123_subdomain) {
            meta.report(field, Cause::Invalid, "must be a DNS-1123 name");
            return None;
        }
        name
    }

    fn read_enrolment(&self, meta: &Fields<'_>) -> Enrolment {
        match self.label("istio.io/dataplane-mode").map(|value| &**value) {
            None => Enrolment::Unset,
            Some("ambient") => Enrolment::In,
            Some("none") => Enrolment::Out,
            Some(_) => {
                let reason = "istio.io/dataplane-mode must be \"ambient\" or \"none\"";
                meta.report("labels", Cause::Invalid, reason);
                Enrolment::Unset
            }
        }
    }

    fn read_waypoint(&self) -> UseWaypoint {
        let namespace = self.label("istio.io/use-waypoint-namespace").cloned();
        match self.label("istio.io/use-waypoint") {
            None => UseWaypoint::Unset,
            Some(name) if **name == *"none" => UseWaypoint::Without,
            Some(name) => UseWaypoint::Named(namespace, name.clone()),
        }
    }
}

fn texts(meta: &Fields<'_>, field: &str, intern: &mut Interner) -> Vec<(Arc<str>, Arc<str>)> {
    let pairs = meta.pairs(field);
    let mut texts: Vec<_> =
        pairs.into_iter().map(|(key, value)| (intern.text(key), intern.text(value))).collect();
    texts.sort_unstable();
    texts
}

/// Reports labels and annotations that look like ours and do nothing here.
fn account(meta: &Fields<'_>, kind: Kind) {
    for field in ["labels", "annotations"] {
        let Some(map) = meta.fields(field) else { continue };
        for key in map.names().filter(|key| OURS.iter().any(|prefix| key.starts_with(prefix))) {
            let acting = ACTING.iter().find(|(own, _)| *own == key);
            match acting {
                Some((_, kinds)) if kinds.contains(&kind) => {}
                Some(_) => {
                    let reason = format!("has no effect on a {}", kind.name());
                    map.report(key, Cause::Unsupported, reason);
                }
                None if NOTES.contains(&key) => {}
                None if key.starts_with("culvert.dev/") => {
                    map.report(key, Cause::Unknown, "no such label or annotation");
                }
                None => map.report(key, Cause::Unsupported, "is not supported and has no effect"),
            }
        }
    }
}

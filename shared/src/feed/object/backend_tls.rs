//! `kind: BackendTLSPolicy`, and the `ConfigMap`s that hold its authorities.
//!
//! Invariant: a policy that cannot be kept stands all the same, and says why nothing may be sent: what
//! asks for TLS is never sent without it.
//! Source: Gateway API v1, spec L7 §2.9.

use std::sync::Arc;

use rustls::pki_types::DnsName;

use crate::feed::fields::{Fields, Problems};
use crate::feed::intern::Interner;
use crate::feed::verdict::Cause;
use crate::tls::PeerName;

/// TLS towards the applications of services.
#[derive(Debug, Clone)]
pub(crate) struct BackendTlsPolicy {
    pub(crate) targets: Vec<TlsTarget>,
    pub(crate) server_name: Arc<str>,
    pub(crate) names: Box<[PeerName]>,
    pub(crate) authorities: Authorities,
    /// Why nothing may be sent.
    pub(crate) refused: Option<Arc<str>>,
}

/// A service, or a port of one.
#[derive(Debug, Clone)]
pub(crate) struct TlsTarget {
    /// Path of the reference, for remarks.
    pub(crate) field: Box<str>,
    pub(crate) kind: TlsTargetKind,
    pub(crate) name: Arc<str>,
    /// Name of the only port.
    pub(crate) section: Option<Arc<str>>,
}

/// The kinds of what TLS is spoken with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TlsTargetKind {
    Service,
    ServiceEntry,
}

/// Who must have signed the certificates.
#[derive(Debug, Clone)]
pub(crate) enum Authorities {
    /// The authorities that the system trusts.
    System,
    /// `ca.crt` of these `ConfigMap`s, each with the path of its reference.
    ConfigMaps(Vec<(Box<str>, Arc<str>)>),
}

impl BackendTlsPolicy {
    pub(crate) fn read(root: &Fields<'_>, intern: &mut Interner) -> Option<Self> {
        root.foreign(&["status"]);
        let spec = root.fields("spec")?;
        spec.unsupported(&["options"], "has no meaning here");
        let targets = spec.each("targetRefs");
        let targets = targets.iter().filter_map(|one| target(one, intern)).collect();
        let Some(validation) = spec.fields("validation") else {
            spec.report("validation", Cause::Invalid, "must say who may answer");
            return Some(Self {
                targets,
                server_name: Arc::default(),
                names: Box::default(),
                authorities: Authorities::System,
                refused: None,
            });
        };
        let hostname = validation.text("hostname").unwrap_or("");
        if DnsName::try_from(hostname).is_err() {
            validation.report("hostname", Cause::Invalid, "must be the DNS name of a server");
        }
        let names = validation.each("subjectAltNames");
        Some(Self {
            targets,
            server_name: intern.text(hostname),
            names: names.iter().filter_map(|one| name(one, intern)).collect(),
            authorities: authorities(&validation, intern),
            refused: None,
        })
    }

    /// This policy; if something of it is not understood, one that lets nothing through.
    pub(crate) fn or_refuse(self, problems: &Problems) -> Self {
        let problems = problems.borrow();
        let fatal = problems.iter().find(|problem| {
            matches!(problem.cause, Cause::Unknown | Cause::Invalid)
                && problem.field.starts_with("spec")
        });
        let Some(fatal) = fatal else { return self };
        let reason = format!("BackendTLSPolicy is invalid: {}: {}", fatal.field, fatal.reason);
        Self { refused: Some(reason.into()), ..self }
    }
}

fn target(fields: &Fields<'_>, intern: &mut Interner) -> Option<TlsTarget> {
    let (group, kind) = (fields.text("group").unwrap_or(""), fields.text("kind").unwrap_or(""));
    let section = fields.text("sectionName").map(|text| intern.text(text));
    let kind = match (group, kind) {
        ("" | "core", "Service") => TlsTargetKind::Service,
        ("networking.istio.io", "ServiceEntry") => TlsTargetKind::ServiceEntry,
        _ => {
            let reason = format!("a policy for TLS cannot be attached to a {group}/{kind}");
            fields.report("", Cause::Unsupported, reason);
            return None;
        }
    };
    let Some(name) = fields.text("name") else {
        fields.report("name", Cause::Invalid, "must say which");
        return None;
    };
    Some(TlsTarget { field: fields.path().into(), kind, name: intern.text(name), section })
}

fn name(fields: &Fields<'_>, intern: &mut Interner) -> Option<PeerName> {
    let (hostname, uri) = (fields.text("hostname"), fields.text("uri"));
    match (fields.text("type"), hostname, uri) {
        (Some("Hostname"), Some(text), None) if DnsName::try_from(text).is_ok() => {
            Some(PeerName::Hostname(intern.text(text)))
        }
        (Some("URI"), None, Some(text)) if text.contains("://") => {
            Some(PeerName::Uri(intern.text(text)))
        }
        _ => {
            let reason = "must be of type Hostname with a DNS name as hostname, or URI with a uri";
            fields.report("", Cause::Invalid, reason);
            None
        }
    }
}

fn authorities(validation: &Fields<'_>, intern: &mut Interner) -> Authorities {
    let references = validation.each("caCertificateRefs");
    let mut maps = Vec::new();
    for one in &references {
        let (group, kind) = (one.text("group").unwrap_or(""), one.text("kind").unwrap_or(""));
        match (group, kind, one.text("name")) {
            ("" | "core", "ConfigMap", Some(name)) => {
                maps.push((one.path().into(), intern.text(name)));
            }
            ("" | "core", "ConfigMap", None) => {
                one.report("name", Cause::Invalid, "must say which");
            }
            _ => {
                // Gateway API: InvalidKind.
                let reason = format!("{group}/{kind} is no kind that holds authorities");
                one.report("kind", Cause::Invalid, reason);
            }
        }
    }
    match (validation.text("wellKnownCACertificates"), references.is_empty()) {
        (Some("System"), true) => Authorities::System,
        (None, false) => Authorities::ConfigMaps(maps),
        _ => {
            let reason = "needs caCertificateRefs or wellKnownCACertificates: System, and not both";
            validation.report("", Cause::Invalid, reason);
            Authorities::ConfigMaps(maps)
        }
    }
}

/// `ca.crt` of a `ConfigMap`; what else it holds says nothing to a mesh.
pub(crate) fn authorities_of_config_map(root: &Fields<'_>) -> Option<Arc<str>> {
    let text = root.fields("data").and_then(|entries| entries.text("ca.crt")).map(Arc::from);
    root.foreign(&["data", "binaryData", "immutable"]);
    text
}

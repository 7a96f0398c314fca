//! `kind: PeerAuthentication`.

use crate::feed::fields::Fields;
use crate::feed::intern::Interner;
use crate::feed::object::Labels;
use crate::feed::verdict::Cause;

/// Whether plaintext is accepted.
#[derive(Debug, Clone)]
pub(crate) struct PeerAuthentication {
    /// Empty: the whole namespace, or the mesh in the root namespace.
    pub(crate) selector: Labels,
    pub(crate) mode: MtlsMode,
    /// Exceptions by port of the workload.
    pub(crate) ports: Box<[(u16, MtlsMode)]>,
}

/// A mode, as far as a destination can tell them apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MtlsMode {
    /// As the wider policy says.
    Inherit,
    /// `PERMISSIVE` and `DISABLE`: plaintext is accepted.
    Open,
    /// `STRICT`: only peers with a proved identity.
    Strict,
}

impl PeerAuthentication {
    /// What cannot be read is taken as strict: the safe side for what it covers.
    pub(crate) fn read(root: &Fields<'_>, intern: &mut Interner) -> Self {
        let (mut mode, mut ports) = (MtlsMode::Inherit, Vec::new());
        let mut selected = Labels::default();
        if let Some(spec) = root.fields("spec") {
            selected = selector(&spec, intern);
            mode = spec.fields("mtls").map_or(MtlsMode::Inherit, |mtls| read_mode(&mtls));
            if let Some(by_port) = spec.fields("portLevelMtls") {
                for name in by_port.names() {
                    let port_mode = by_port.fields(name).map(|fields| read_mode(&fields));
                    match (name.parse(), port_mode) {
                        (Ok(port), Some(mode)) => ports.push((port, mode)),
                        _ => by_port.report(name, Cause::Invalid, "must be a port with a mode"),
                    }
                }
                if selected.is_empty() {
                    let reason = "ports need a selector; without one they have no effect";
                    spec.report("portLevelMtls", Cause::Unsupported, reason);
                    ports.clear();
                }
            }
        }
        Self { selector: selected, mode, ports: ports.into() }
    }
}

fn read_mode(fields: &Fields<'_>) -> MtlsMode {
    match fields.text("mode") {
        None | Some("UNSET") => MtlsMode::Inherit,
        Some("PERMISSIVE" | "DISABLE") => MtlsMode::Open,
        Some("STRICT") => MtlsMode::Strict,
        Some(other) => {
            let reason = format!("\"{other}\" is no mode; taken as STRICT");
            fields.report("mode", Cause::Invalid, reason);
            MtlsMode::Strict
        }
    }
}

/// `selector.matchLabels`, sorted.
pub(super) fn selector(spec: &Fields<'_>, intern: &mut Interner) -> Labels {
    let selector = spec.fields("selector");
    let mut labels = selector.map(|selector| selector.pairs("matchLabels")).unwrap_or_default();
    labels.sort_unstable();
    labels.iter().map(|(key, value)| (intern.text(key), intern.text(value))).collect()
}

//! TLS policies, given to the services that they are for.
//!
//! Invariants: of several for one port, one that names the port comes first, then the oldest, then the
//! first by name; the others get a verdict. What cannot be kept refuses what it covers.
//! Source: Gateway API BackendTLSPolicy; spec L7 §2.9.

use std::collections::HashMap;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use crate::feed::compile::Compiled;
use crate::feed::compile::world::World;
use crate::feed::object::{Authorities, BackendTlsPolicy, Body, Object, TlsTarget, TlsTargetKind};
use crate::feed::verdict::{Cause, Verdict};
use crate::mesh::{PortTls, Service, ServiceKey};
use crate::tls::{BackendRoots, BackendTerms, backend_config};

pub(super) fn compile(world: &mut World<'_>, compiled: &mut Compiled) {
    let policies = world.objects.iter().filter_map(|object| match &object.body {
        Body::BackendTls(policy) => Some((*object, &**policy)),
        _ => None,
    });
    let mut policies: Vec<(&Object, &BackendTlsPolicy)> = policies.collect();
    if policies.is_empty() {
        return;
    }
    policies.sort_by(|(one, _), (other, _)| {
        (&one.created, &one.key).cmp(&(&other.created, &other.key))
    });
    let maps = world.objects.iter().filter_map(|object| match &object.body {
        Body::ConfigMap(authorities) => {
            Some(((&*object.key.namespace, &*object.key.name), authorities.as_deref()))
        }
        _ => None,
    });
    let maps: HashMap<(&str, &str), Option<&str>> = maps.collect();
    for (object, policy) in policies {
        let terms = terms(object, policy, &maps, &mut world.verdicts);
        for target in &policy.targets {
            let keys = services(world, object, target);
            let verdicts = attach(compiled, object, target, &keys, &terms);
            world.verdicts.extend(verdicts);
        }
    }
}

type Terms = Result<Arc<BackendTerms>, Arc<str>>;

/// What a policy demands, or why nothing may be sent.
fn terms(
    object: &Object,
    policy: &BackendTlsPolicy,
    maps: &HashMap<(&str, &str), Option<&str>>,
    verdicts: &mut Vec<Verdict>,
) -> Terms {
    if let Some(reason) = &policy.refused {
        return Err(Arc::clone(reason));
    }
    let mut refuse = |field: &str, reason: String| -> Arc<str> {
        let reason = format!("{reason}, so requests are refused rather than sent without TLS");
        verdicts.push(object.verdict(field, Cause::Invalid, &reason));
        reason.into()
    };
    let roots = match &policy.authorities {
        Authorities::System => BackendRoots::System,
        Authorities::ConfigMaps(references) => {
            let mut all = Vec::new();
            for (field, name) in references {
                let text = maps.get(&(&*object.key.namespace, &**name));
                let Some(text) = text else {
                    return Err(refuse(field, format!("there is no ConfigMap {name}")));
                };
                let found = CertificateDer::pem_slice_iter(text.unwrap_or_default().as_bytes());
                match found.collect::<Result<Vec<_>, _>>() {
                    Ok(found) if !found.is_empty() => all.extend(found),
                    _ => {
                        let reason = format!("ca.crt of ConfigMap {name} holds no certificates");
                        return Err(refuse(field, reason));
                    }
                }
            }
            BackendRoots::Certificates(all.into())
        }
    };
    let (namespace, name) = (&object.key.namespace, &object.key.name);
    let terms = BackendTerms {
        policy: format!("{namespace}/{name}").into(),
        server_name: policy.server_name.clone(),
        names: policy.names.clone(),
        roots,
    };
    // The authorities of the system are read where they are used.
    if let BackendRoots::Certificates(_) = terms.roots
        && let Err(error) = backend_config(&terms, &[])
    {
        return Err(refuse("spec.validation", error.to_string()));
    }
    Ok(Arc::new(terms))
}

fn services(world: &mut World<'_>, object: &Object, target: &TlsTarget) -> Vec<ServiceKey> {
    let namespace = &object.key.namespace;
    match target.kind {
        TlsTargetKind::Service => vec![world.service_key(namespace, &target.name)],
        TlsTargetKind::ServiceEntry => world.hosts_of(namespace, &target.name),
    }
}

/// Gives the terms to the services, unless others came first.
fn attach(
    compiled: &mut Compiled,
    object: &Object,
    target: &TlsTarget,
    keys: &[ServiceKey],
    terms: &Terms,
) -> Option<Verdict> {
    let say = |cause, reason: String| Some(object.verdict(&target.field, cause, reason));
    let mut found = false;
    for key in keys {
        let Some(service) = compiled.services.get_mut(key) else { continue };
        found = true;
        let port = match &target.section {
            None => None,
            Some(section) => match service.ports.iter().find(|own| own.name == *section) {
                Some(port) => Some(port.port),
                None => return say(Cause::Invalid, format!("service {key} has no port {section}")),
            },
        };
        if service.tls.iter().any(|own| own.port == port) {
            let reason = format!("an older policy is for the same ports of {key}");
            return say(Cause::Shadowed, reason);
        }
        put(service, PortTls { port, terms: terms.clone() });
        if service.waypoints().next().is_none() {
            let reason = format!("{key} has no waypoint, so nothing speaks TLS with it");
            return say(Cause::Unsupported, reason);
        }
    }
    if found { None } else { say(Cause::Invalid, format!("there is no {}", target.name)) }
}

/// Those of one port come first.
fn put(service: &mut Arc<Service>, tls: PortTls) {
    let service = Arc::make_mut(service);
    let mut all = std::mem::take(&mut service.tls).into_vec();
    all.push(tls);
    all.sort_by_key(|one| one.port.is_none());
    service.tls = all.into();
}

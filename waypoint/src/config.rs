//! What the operator wants: flags, then `CULVERT_` variables, then Istio's, then defaults.
//!
//! Not here: what the other program wants alike (`shared::config`).

use std::net::{Ipv6Addr, SocketAddr};
use std::sync::Arc;

use serde::Serialize;
use shared::config::{
    self, Feed, Identity, Names, ParseError, Process, Reader, Servers, Setting, Source, Tunnel,
};

const GATEWAY: &Setting =
    &Setting::new("gateway", "CULVERT_GATEWAY", &[], "NAMESPACE/NAME", "the Gateway to serve");
const LISTEN: &Setting = &Setting::new(
    "listen",
    "CULVERT_LISTEN",
    &[],
    "ADDR",
    "where tunnels are accepted [default: [::]:15008]",
);

/// Settings of `waypoint run`.
pub const RUN: &[&Setting] = &[
    config::MESH,
    GATEWAY,
    LISTEN,
    config::FEED,
    config::CA_ADDR,
    config::JOIN_TOKEN,
    config::CERTS,
    config::TRUST_DOMAIN,
    config::WORKERS,
    config::STATE,
    config::ADMIN,
    config::STATS,
    config::READY,
];

/// Everything that `waypoint run` goes by; shown in `/config_dump`.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Config {
    /// Where the picture of the mesh comes from.
    pub feed: Feed,
    /// The Gateway that is served.
    pub gateway: GatewayName,
    /// Where tunnels are accepted; default `[::]:15008`. Port 0 lets the system choose.
    pub listen: SocketAddr,
    /// The pod that this process is (`POD_NAME`), among those of the Gateway; any of them when unset.
    pub pod: Option<Box<str>>,
    /// Who this waypoint is.
    pub identity: Identity,
    /// The process.
    pub process: Process,
    /// Administrative servers.
    pub servers: Servers,
    /// Names of this part of the mesh.
    pub names: Names,
    /// Limits of tunnels.
    pub tunnel: Tunnel,
}

/// A Gateway by name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct GatewayName {
    /// Namespace.
    pub namespace: Arc<str>,
    /// Name.
    pub name: Arc<str>,
}

impl Config {
    /// Reads everything, or says everything that is wrong.
    ///
    /// # Errors
    /// All mistakes, in the order of the settings.
    pub fn parse(source: &impl Source) -> Result<Self, Vec<ParseError>> {
        let mut read = Reader::new(source);
        let feed = read.feed();
        let gateway = gateway(&mut read);
        let listen = read.address(LISTEN, SocketAddr::from((Ipv6Addr::UNSPECIFIED, 15008)));
        let identity = read.identity();
        let pod = read.variable("POD_NAME").map(String::into_boxed_str);
        let process = read.process();
        let servers = read.servers(true);
        let names = read.names();
        let tunnel = read.tunnel();
        read.refuse_tls12();
        let errors = read.into_errors();
        match (feed, gateway, identity) {
            (Some(feed), Some(gateway), Some(identity)) if errors.is_empty() => {
                Ok(Self { feed, gateway, listen, pod, identity, process, servers, names, tunnel })
            }
            _ => Err(errors),
        }
    }
}

/// What was given and has no effect: unknown `CULVERT_` variables.
pub fn warnings(source: &impl Source) -> Vec<String> {
    config::unknown_variables(source, RUN.iter().copied())
}

fn gateway<S: Source>(read: &mut Reader<'_, S>) -> Option<GatewayName> {
    let Some((origin, value)) = read.text(GATEWAY) else {
        read.missing(GATEWAY, "a waypoint serves what is bound to its Gateway");
        return None;
    };
    match value.split_once('/') {
        Some((namespace, name))
            if !namespace.is_empty() && !name.is_empty() && !name.contains('/') =>
        {
            Some(GatewayName { namespace: namespace.into(), name: name.into() })
        }
        _ => {
            read.wrong(&origin, &value, "does not name a Gateway, write NAMESPACE/NAME");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use shared::config::Given;

    use super::*;

    const COMPLETE: [(&str, &str); 3] =
        [("mesh", "/mesh"), ("gateway", "shop/waypoint"), ("certs", "/certs")];

    fn parse(
        flags: &[(&'static str, &str)],
        variables: &[(&str, &str)],
    ) -> Result<Config, Vec<ParseError>> {
        let flags = flags.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        let variables: BTreeMap<String, String> =
            variables.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        Config::parse(&Given::new(flags, &variables))
    }

    #[test]
    fn flags_alone_are_enough() {
        let config = parse(&COMPLETE, &[]).unwrap();
        assert_eq!(&*config.gateway.namespace, "shop");
        assert_eq!(config.listen.to_string(), "[::]:15008");
        assert_eq!(config.servers.ready.to_string(), "[::]:15021");
        assert_eq!(config.pod, None);
    }

    #[test]
    fn variables_stand_for_flags() {
        let variables = [
            ("CULVERT_GATEWAY", "shop/waypoint"),
            ("CULVERT_LISTEN", "[::1]:0"),
            ("POD_NAME", "w-1"),
        ];
        let config = parse(&[COMPLETE[0], COMPLETE[2]], &variables).unwrap();
        assert_eq!(config.listen.to_string(), "[::1]:0");
        assert_eq!(config.pod.as_deref(), Some("w-1"));
    }

    #[test]
    fn all_mistakes_are_told_at_once() {
        let mistakes = parse(&[("gateway", "shop"), ("listen", "here")], &[]).unwrap_err();
        let text: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
        for part in ["--mesh", "NAMESPACE/NAME", "--listen", "--ca"] {
            assert!(text.iter().any(|one| one.contains(part)), "{part}: {text:?}");
        }
        for gateway in ["", "shop/", "/waypoint", "a/b/c"] {
            assert!(parse(&[COMPLETE[0], ("gateway", gateway), COMPLETE[2]], &[]).is_err());
        }
    }

    #[test]
    fn unknown_variables_of_ours_are_told() {
        let variables: BTreeMap<String, String> =
            BTreeMap::from([("CULVERT_NODE".to_owned(), "n".to_owned())]);
        assert_eq!(warnings(&Given::new(BTreeMap::new(), &variables)).len(), 1);
    }
}

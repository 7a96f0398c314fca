//! A setting, and those that both programs have.

use super::source::Source;

/// One setting.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// Flag, without dashes.
    pub flag: &'static str,
    /// Variable of ours.
    pub variable: &'static str,
    /// Variables of Istio's ztunnel that mean the same.
    pub istio: &'static [&'static str],
    /// How the value is called in the help.
    pub value: &'static str,
    /// Meaning and default.
    pub help: &'static str,
}

impl Setting {
    /// A setting with these names and this help.
    pub const fn new(
        flag: &'static str,
        variable: &'static str,
        istio: &'static [&'static str],
        value: &'static str,
        help: &'static str,
    ) -> Self {
        Self { flag, variable, istio, value, help }
    }

    /// The argument of a command line that gives this setting.
    pub fn argument(&self) -> clap::Arg {
        let help = format!("{} [{}]", self.help, self.variable);
        clap::Arg::new(self.flag).long(self.flag).value_name(self.value).help(help)
    }
}

/// What is wrong with variables that look like ours and are not among `known`.
pub fn unknown_variables<'a>(
    source: &impl Source,
    known: impl Iterator<Item = &'a Setting> + Clone,
) -> Vec<String> {
    let mut names = source.names();
    names.sort();
    names.retain(|name| name.starts_with("CULVERT_"));
    names.retain(|name| !known.clone().any(|setting| setting.variable == *name));
    let unknown = names.iter();
    unknown.map(|name| format!("variable {name} is not known and has no effect")).collect()
}

/// The mesh directory.
pub const MESH: &Setting = &Setting::new(
    "mesh",
    "CULVERT_MESH",
    &[],
    "DIR",
    "mesh directory: Kubernetes YAML, read again when it changes",
);
/// Which feed.
pub const FEED: &Setting = &Setting::new(
    "feed",
    "CULVERT_FEED",
    &[],
    "KIND",
    "where objects come from: dir (kube and xds are not part of this version)",
);
/// The certificate authority.
pub const CA_ADDR: &Setting = &Setting::new(
    "ca",
    "CULVERT_CA",
    &["CA_ADDRESS"],
    "ADDR",
    "certificate authority, host:port; with --join-token",
);
/// The token that joins it.
pub const JOIN_TOKEN: &Setting = &Setting::new(
    "join-token",
    "CULVERT_JOIN_TOKEN",
    &[],
    "FILE",
    "file with the join token of this node or gateway (`ztunnel ca token NAME`)",
);
/// Certificates as files.
pub const CERTS: &Setting = &Setting::new(
    "certs",
    "CULVERT_CERTS",
    &[],
    "DIR",
    "certificates as files, instead of --ca; read again when they change",
);
/// The trust domain.
pub const TRUST_DOMAIN: &Setting = &Setting::new(
    "trust-domain",
    "CULVERT_TRUST_DOMAIN",
    &["TRUST_DOMAIN"],
    "NAME",
    "first part of every identity [default: cluster.local]",
);
/// Data-plane threads.
pub const WORKERS: &Setting = &Setting::new(
    "workers",
    "CULVERT_WORKERS",
    &["ZTUNNEL_WORKER_THREADS"],
    "N",
    "upper limit of data-plane threads, N, N% of CPUs, or 0 for all [default: 0]",
);
/// The state directory.
pub const STATE: &Setting = &Setting::new(
    "state",
    "CULVERT_STATE",
    &[],
    "DIR",
    "directory for admin.sock, kept private [default: /var/lib/culvert]",
);
/// Administration.
pub const ADMIN: &Setting = &Setting::new(
    "admin",
    "CULVERT_ADMIN",
    &[],
    "ADDR",
    "read-only administration, loopback only [default: 127.0.0.1:15000]",
);
/// Statistics.
pub const STATS: &Setting = &Setting::new(
    "stats",
    "CULVERT_STATS",
    &[],
    "ADDR",
    "statistics [default: 127.0.0.1:15020, in Kubernetes [::]:15020]",
);
/// Readiness.
pub const READY: &Setting =
    &Setting::new("ready", "CULVERT_READY", &[], "ADDR", "readiness [default: [::]:15021]");

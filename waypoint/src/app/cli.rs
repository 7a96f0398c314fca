//! The command line: which command, which flags. What their values mean is in `config`.

use std::collections::BTreeMap;
use std::ffi::OsString;

use clap::{Args as _, FromArgMatches as _};
use shared::check::Check;
use shared::config::Setting;

use crate::config;

const ABOUT: &str = "Culvert's HTTP proxy: routes requests between the pods of a mesh.

Traffic to a service comes here when the service, or its namespace, is labelled
istio.io/use-waypoint with the name of a Gateway of class istio-waypoint.
Without a command it runs the proxy, as `waypoint run`.";

const EXAMPLES: &str = "Examples:
  waypoint run --mesh ./mesh --gateway shop/waypoint --ca 10.0.0.1:15012 --join-token wp.token
  waypoint check ./mesh";

const RUN_EXAMPLES: &str = "Examples:
  Serve the Gateway `waypoint` of namespace `shop`, certificate from `ztunnel ca`:
    ztunnel ca token shop/waypoint --state ./ca > wp.token
    waypoint run --mesh ./mesh --gateway shop/waypoint --ca 10.0.0.1:15012 --join-token wp.token
  Certificates as files (ns/shop/sa/waypoint/cert-chain.pem, key.pem, and root-cert.pem):
    waypoint run --mesh ./mesh --gateway shop/waypoint --certs ./certs

Is it ready?       curl http://127.0.0.1:15021/healthz/ready
What does it see?  curl http://127.0.0.1:15000/config_dump
More log:          curl -X POST --unix-socket STATE/admin.sock 'http://x/logging?level=debug'

Every flag is also a variable, CULVERT_<FLAG> (docs/configuration.md).";

/// What to do.
pub(super) enum Command {
    /// Run the proxy with these flags.
    Run(BTreeMap<&'static str, String>),
    /// Say what of a mesh directory is in force.
    Check(Check),
    /// Say the version.
    Version,
}

/// Reads the command line; help and mistakes come back as clap's own error.
pub(super) fn parse(mut arguments: Vec<OsString>) -> clap::error::Result<Command> {
    let flags_only = |word: &OsString| {
        let word = word.to_string_lossy();
        word.starts_with('-') && !matches!(&*word, "-h" | "--help" | "-V" | "--version")
    };
    if arguments.get(1).is_none_or(flags_only) {
        arguments.resize(arguments.len().max(1), "waypoint".into());
        arguments.insert(1, "run".into());
    }
    let matches = command().try_get_matches_from(arguments)?;
    Ok(match matches.subcommand() {
        Some(("check", of)) => Command::Check(Check::from_arg_matches(of)?),
        Some(("version", _)) => Command::Version,
        Some((_, of)) => {
            let given = |setting: &&Setting| {
                Some((setting.flag, of.get_one::<String>(setting.flag)?.clone()))
            };
            Command::Run(config::RUN.iter().filter_map(given).collect())
        }
        None => Command::Run(BTreeMap::new()),
    })
}

fn command() -> clap::Command {
    let run = clap::Command::new("run")
        .about("Run the proxy")
        .after_help(RUN_EXAMPLES)
        .args(config::RUN.iter().map(|setting| Setting::argument(setting)));
    clap::Command::new("waypoint")
        .version(env!("CARGO_PKG_VERSION"))
        .about(ABOUT)
        .after_help(EXAMPLES)
        .subcommand(run)
        .subcommand(Check::augment_args(clap::Command::new("check")))
        .subcommand(clap::Command::new("version").about("Say the version"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(arguments: &[&str]) -> clap::error::Result<Command> {
        parse(std::iter::once(&"waypoint").chain(arguments).map(Into::into).collect())
    }

    #[test]
    fn no_command_means_run() {
        for words in [&[][..], &["run"]] {
            let arguments = [words, &["--gateway", "shop/waypoint"]].concat();
            let Ok(Command::Run(flags)) = parsed(&arguments) else { panic!("must mean run") };
            assert_eq!(flags["gateway"], "shop/waypoint");
        }
        assert!(matches!(parsed(&[]), Ok(Command::Run(flags)) if flags.is_empty()));
    }

    #[test]
    fn help_teaches_with_examples() {
        for arguments in [&["--help"][..], &["run", "--help"]] {
            let Err(help) = parsed(arguments) else { panic!("help is shown") };
            assert!(!help.use_stderr());
            assert!(help.to_string().contains("Examples:"));
        }
    }

    #[test]
    fn unknown_words_are_mistakes() {
        for arguments in [&["serve"][..], &["--gateways", "n"], &["check"]] {
            assert!(parsed(arguments).is_err_and(|error| error.use_stderr()), "{arguments:?}");
        }
    }
}

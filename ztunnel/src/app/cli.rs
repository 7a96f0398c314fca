//! The command line: which command, which flags. What their values mean is in `config`.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Arg, Args as _, FromArgMatches as _};
use shared::check::Check;
use shared::config::{Environment, Setting};

use crate::ca;
use crate::config;

const ABOUT: &str = "Culvert's node proxy: carries the traffic of pods over mutual TLS.

Without a command it runs the proxy, as `ztunnel run`.";

const EXAMPLES: &str = "Examples:
  ztunnel ca --mesh ./mesh --state ./ca --listen 0.0.0.0:15012
  ztunnel ca token node-1 --state ./ca > node-1.token
  ztunnel run --mesh ./mesh --node node-1 --ca 10.0.0.1:15012 --join-token node-1.token
  ztunnel check ./mesh";

const RUN_EXAMPLES: &str = "Examples:
  The pods of a node, certificates from `ztunnel ca`:
    ztunnel run --mesh ./mesh --node node-1 --ca 10.0.0.1:15012 --join-token node-1.token
  Certificates as files (ns/<namespace>/sa/<account>/cert-chain.pem, key.pem, and root-cert.pem):
    ztunnel run --mesh ./mesh --node node-1 --certs ./certs
  One pod, in the current network namespace:
    ztunnel run --mesh ./mesh --dedicated shop/web-1 --certs ./certs

Is it ready?       curl http://127.0.0.1:15021/healthz/ready
What does it see?  curl http://127.0.0.1:15000/config_dump
More log:          curl -X POST --unix-socket STATE/admin.sock 'http://x/logging?level=debug'

Every flag is also a variable, CULVERT_<FLAG>; Istio's variables are understood where they mean the
same (docs/configuration.md).";

/// What to do.
pub(super) enum Command {
    /// Run the proxy with these flags.
    Run(BTreeMap<&'static str, String>),
    /// Run the authority, or one of its commands.
    Ca(Box<ca::args::Args>),
    /// Say what of a mesh directory is in force.
    Check(Check),
    /// Remove the capture rules from a network namespace.
    Uncapture(PathBuf),
    /// Say the version.
    Version,
}

/// Reads the command line; help and mistakes come back as clap's own error.
pub(super) fn parse(
    arguments: Vec<OsString>,
    environment: &impl Environment,
) -> clap::error::Result<Command> {
    let arguments = with_variables(with_command(arguments), environment);
    let matches = command().try_get_matches_from(arguments)?;
    let path = |matches: &clap::ArgMatches, name| matches.get_one::<PathBuf>(name).cloned();
    Ok(match matches.subcommand() {
        Some(("ca", of)) => Command::Ca(Box::new(ca::args::Args::from_arg_matches(of)?)),
        Some(("check", of)) => Command::Check(Check::from_arg_matches(of)?),
        Some(("uncapture", of)) => Command::Uncapture(path(of, "netns").unwrap_or_default()),
        Some(("version", _)) => Command::Version,
        Some((_, of)) => Command::Run(
            config::RUN
                .iter()
                .filter_map(|setting| {
                    Some((setting.flag, of.get_one::<String>(setting.flag)?.clone()))
                })
                .collect(),
        ),
        None => Command::Run(BTreeMap::new()),
    })
}

fn command() -> clap::Command {
    let run = clap::Command::new("run")
        .about("Run the proxy")
        .after_help(RUN_EXAMPLES)
        .args(config::RUN.iter().map(|setting| Setting::argument(setting)));
    let ca = ca::args::Args::augment_args(
        clap::Command::new("ca").about("Run the certificate authority"),
    );
    let path = |name: &'static str| {
        Arg::new(name).value_parser(clap::value_parser!(PathBuf)).required(true)
    };
    clap::Command::new("ztunnel")
        .version(env!("CARGO_PKG_VERSION"))
        .about(ABOUT)
        .after_help(EXAMPLES)
        .subcommand(run)
        .subcommand(ca)
        .subcommand(Check::augment_args(clap::Command::new("check")))
        .subcommand(
            clap::Command::new("uncapture")
                .about("Remove the capture rules from a network namespace that no proxy serves any more")
                .arg(path("netns").long("netns").value_name("PATH")),
        )
        .subcommand(clap::Command::new("version").about("Say the version"))
}

/// No command means run; so do Istio's `proxy` and `proxy ztunnel`, whatever follows them.
fn with_command(mut arguments: Vec<OsString>) -> Vec<OsString> {
    let word = |arguments: &[OsString], at: usize| {
        arguments.get(at).and_then(|word| word.to_str()).map(str::to_owned)
    };
    match word(&arguments, 1).as_deref() {
        Some("proxy") => {
            let role = usize::from(word(&arguments, 2).as_deref() == Some("ztunnel"));
            arguments.splice(1..2 + role, ["run".into()]);
        }
        Some("-h" | "--help" | "-V" | "--version" | "help") => {}
        Some(first) if first.starts_with('-') => arguments.insert(1, "run".into()),
        Some(_) => {}
        None => {
            arguments.resize(1, "ztunnel".into());
            arguments.push("run".into());
        }
    }
    arguments
}

/// `ztunnel ca` takes its flags from `CULVERT_` variables, too: those not given are added.
fn with_variables(mut arguments: Vec<OsString>, environment: &impl Environment) -> Vec<OsString> {
    if arguments.get(1).is_none_or(|word| word != "ca") {
        return arguments;
    }
    // Its small commands know the place of the authority only.
    let small = arguments.get(2).is_some_and(|word| !word.to_string_lossy().starts_with('-'));
    for setting in config::CA
        .iter()
        .filter(|setting| !small || matches!(setting.flag, "state" | "trust-domain"))
    {
        let flag = format!("--{}", setting.flag);
        let given = arguments.iter().any(|argument| {
            argument
                .to_str()
                .is_some_and(|text| text == flag || text.starts_with(&format!("{flag}=")))
        });
        if let Some(value) =
            environment.variable(setting.variable).filter(|value| !given && !value.is_empty())
        {
            arguments.push(format!("{flag}={value}").into());
        }
    }
    arguments
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(arguments: &[&str], variables: &[(&str, &str)]) -> clap::error::Result<Command> {
        let environment: BTreeMap<String, String> =
            variables.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        parse(std::iter::once(&"ztunnel").chain(arguments).map(Into::into).collect(), &environment)
    }

    fn run_flags(arguments: &[&str]) -> BTreeMap<&'static str, String> {
        match parsed(arguments, &[]) {
            Ok(Command::Run(flags)) => flags,
            _ => panic!("{arguments:?} must mean run"),
        }
    }

    #[test]
    fn no_command_and_istios_words_mean_run() {
        for arguments in [&[][..], &["run"], &["proxy"], &["proxy", "ztunnel"]] {
            assert!(run_flags(arguments).is_empty());
        }
        for words in [&[][..], &["run"], &["proxy"], &["proxy", "ztunnel"]] {
            let flags = run_flags(&[words, &["--node", "n1"]].concat());
            assert_eq!(flags["node"], "n1");
        }
    }

    #[test]
    fn other_commands_are_understood() {
        assert!(
            matches!(parsed(&["check", "mesh"], &[]), Ok(Command::Check(check)) if check.dir.ends_with("mesh"))
        );
        assert!(matches!(parsed(&["uncapture", "--netns", "/n"], &[]), Ok(Command::Uncapture(_))));
        assert!(matches!(parsed(&["version"], &[]), Ok(Command::Version)));
    }

    #[test]
    fn the_authority_takes_variables_for_flags_that_are_not_given() {
        let variables = [
            ("CULVERT_STATE", "/ca"),
            ("CULVERT_MESH", "/mesh"),
            ("CULVERT_LISTEN", "127.0.0.1:1"),
        ];
        let Ok(Command::Ca(serve)) = parsed(&["ca", "--mesh", "/other"], &variables) else {
            panic!("must be the authority")
        };
        assert_eq!(serve.serve.mesh, Some("/other".into()));
        assert_eq!(serve.serve.state.state, Some("/ca".into()));
        assert!(matches!(parsed(&["ca", "token", "node-1"], &variables), Ok(Command::Ca(_))));
    }

    #[test]
    fn help_teaches_with_examples() {
        for arguments in [&["--help"][..], &["run", "--help"]] {
            let Err(help) = parsed(arguments, &[]) else { panic!("help is shown") };
            assert!(!help.use_stderr());
            assert!(help.to_string().contains("Examples:"));
        }
    }

    #[test]
    fn unknown_words_are_mistakes() {
        for arguments in [&["serve"][..], &["--nodes", "n"], &["check"]] {
            assert!(parsed(arguments, &[]).is_err_and(|error| error.use_stderr()), "{arguments:?}");
        }
    }
}

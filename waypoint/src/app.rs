//! The process. Nothing is pretended: what cannot be served is refused at the start.
//!
//! Exit codes: 64 the command line is wrong; 69 the service is not available in this version.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Arg, Command, value_parser};

/// `EX_USAGE`.
const USAGE: u8 = 64;
/// `EX_UNAVAILABLE`.
const UNAVAILABLE: u8 = 69;

/// Runs the program with the arguments of this process.
pub fn main() -> ExitCode {
    run_from(std::env::args_os())
}

/// Runs the program with these arguments; the first is its name.
pub fn run_from<I, A>(arguments: I) -> ExitCode
where
    I: IntoIterator<Item = A>,
    A: Into<OsString> + Clone,
{
    match command().try_get_matches_from(arguments) {
        Err(error) => {
            let mistake = error.use_stderr();
            error.print().ok();
            if mistake { ExitCode::from(USAGE) } else { ExitCode::SUCCESS }
        }
        Ok(_) => {
            eprintln!(
                "waypoint: routing HTTP is not part of this version; remove the label \
                 istio.io/use-waypoint, and ztunnel carries the traffic without HTTP behaviour"
            );
            ExitCode::from(UNAVAILABLE)
        }
    }
}

fn command() -> Command {
    let path = |name: &'static str| {
        Arg::new(name).long(name).value_name("DIR").value_parser(value_parser!(PathBuf))
    };
    Command::new("waypoint")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Culvert's HTTP proxy. Not part of this version: it only checks its arguments.")
        .subcommand_required(true)
        .subcommand(
            Command::new("run")
                .about("Serve a Gateway")
                .arg(path("mesh").required(true).help("mesh directory"))
                .arg(
                    Arg::new("gateway")
                        .long("gateway")
                        .value_name("NAMESPACE/NAME")
                        .required(true)
                        .value_parser(gateway)
                        .help("the Gateway to serve"),
                ),
        )
}

fn gateway(text: &str) -> Result<(String, String), &'static str> {
    match text.split_once('/') {
        Some((namespace, name))
            if !namespace.is_empty() && !name.is_empty() && !name.contains('/') =>
        {
            Ok((namespace.to_owned(), name.to_owned()))
        }
        _ => Err("write NAMESPACE/NAME"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_correct_command_line_is_told_the_truth() {
        let code = run_from(["waypoint", "run", "--mesh", "mesh", "--gateway", "shop/waypoint"]);
        assert_eq!(format!("{code:?}"), format!("{:?}", ExitCode::from(UNAVAILABLE)));
    }

    #[test]
    fn mistakes_are_usage_errors() {
        for arguments in [
            &["waypoint"][..],
            &["waypoint", "run"],
            &["waypoint", "run", "--mesh", "m", "--gateway", "shop"],
            &["waypoint", "run", "--mesh", "m", "--gateway", "shop/"],
        ] {
            let code = run_from(arguments.iter().copied());
            assert_eq!(
                format!("{code:?}"),
                format!("{:?}", ExitCode::from(USAGE)),
                "{arguments:?}"
            );
        }
    }
}

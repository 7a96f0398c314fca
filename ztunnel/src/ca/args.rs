//! `ztunnel ca …`: what the arguments are, and what they do.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args as ClapArgs, Subcommand};
use shared::identity::TrustDomain;

use super::root::Root;
use super::state::State;
use super::tokens::Tokens;
use super::{Config, Constraints, Error};

/// Arguments of `ztunnel ca`. Without a further word the authority runs.
#[derive(Debug, Clone, ClapArgs)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct Args {
    /// What to do instead of running.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Arguments of the running authority.
    #[command(flatten)]
    pub serve: ServeArgs,
}

/// Arguments of the running authority.
#[derive(Debug, Clone, ClapArgs)]
pub struct ServeArgs {
    /// Directory of Kubernetes YAML: which pods run on which node
    #[arg(long, value_name = "DIR", required = true)]
    pub mesh: Option<PathBuf>,
    /// Address and port to listen on
    #[arg(long, value_name = "ADDR", required = true)]
    pub listen: Option<SocketAddr>,
    /// Lifetime of certificates, and the most that may be asked for (90s, 30m, 24h, 7d)
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = lifetime)]
    pub leaf_ttl: Duration,
    /// State directory and trust domain.
    #[command(flatten)]
    pub state: StateArgs,
}

/// Which authority.
#[derive(Debug, Clone, ClapArgs)]
pub struct StateArgs {
    /// Directory of root and tokens; made with mode 0700 if it is not there
    #[arg(long, value_name = "DIR", required = true)]
    pub state: Option<PathBuf>,
    /// Trust domain of the root; fixed when it is made
    #[arg(long, value_name = "NAME", default_value = TrustDomain::DEFAULT, value_parser = TrustDomain::new)]
    pub trust_domain: TrustDomain,
    /// Whether a new root may certify its trust domain only
    #[arg(long, value_enum, default_value = "on")]
    pub root_constraints: Constraints,
}

/// What can be done besides running.
#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    /// Print a join token for a node
    Token {
        /// The node, as in spec.nodeName of its pods
        node: String,
        /// Which authority.
        #[command(flatten)]
        state: StateArgs,
    },
    /// List join tokens: id, node, when made
    Tokens {
        /// Which authority.
        #[command(flatten)]
        state: StateArgs,
    },
    /// Revoke a join token by its id, or all of a node
    Revoke {
        /// Id or node
        which: String,
        /// Which authority.
        #[command(flatten)]
        state: StateArgs,
    },
}

impl ServeArgs {
    /// The configuration that the arguments say, or nothing when clap was bypassed and one is
    /// missing.
    pub fn config(self) -> Option<Config> {
        Some(Config {
            mesh: self.mesh?,
            state: self.state.state?,
            listen: self.listen?,
            trust_domain: self.state.trust_domain,
            leaf_ttl: self.leaf_ttl,
            constraints: self.state.root_constraints,
        })
    }
}

impl Command {
    /// Does it, and returns what is to be printed.
    ///
    /// # Errors
    /// When the state cannot be used.
    pub fn run(self) -> Result<String, Error> {
        match self {
            Self::Token { node, state } => {
                let (tokens, root) = state.open()?;
                Ok(format!("{}\n", tokens.make(&node, &root)?.as_str()))
            }
            Self::Tokens { state } => {
                let mut text = String::new();
                for token in state.open()?.0.list()? {
                    text += &format!("{}  {}  {}\n", token.id(), token.node, token.created);
                }
                Ok(text)
            }
            Self::Revoke { which, state } => {
                let revoked = state.open()?.0.revoke(&which)?;
                Ok(format!("{revoked} revoked\n"))
            }
        }
    }
}

impl StateArgs {
    fn open(self) -> Result<(Tokens, Root), Error> {
        let state = State::open(&self.state.unwrap_or_default())?;
        let root = Root::open(&state, &self.trust_domain, self.root_constraints)?;
        Ok((Tokens::open(&state)?, root))
    }
}

/// `5s`, `30m`, `24h`, `7d`: whole numbers, at least two seconds, at most 90 days.
fn lifetime(text: &str) -> Result<Duration, &'static str> {
    const WRONG: &str = "a whole number with s, m, h or d, from 2s to 90d";
    let unit = match text.as_bytes().last() {
        Some(b's') => 1,
        Some(b'm') => 60,
        Some(b'h') => 3600,
        Some(b'd') => 86_400,
        _ => return Err(WRONG),
    };
    let number: u64 = text[..text.len() - 1].parse().map_err(|_| WRONG)?;
    let seconds = number.checked_mul(unit).ok_or(WRONG)?;
    (2..=90 * 86_400).contains(&seconds).then_some(Duration::from_secs(seconds)).ok_or(WRONG)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::ca::test_support::Scratch;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: Args,
    }

    fn parse(line: &str) -> Result<Args, clap::Error> {
        Cli::try_parse_from(line.split_whitespace()).map(|cli| cli.args)
    }

    #[test]
    fn authority_runs_by_default() {
        let args = parse("ca --mesh m --state s --listen 127.0.0.1:1 --leaf-ttl 5s").unwrap();
        assert!(args.command.is_none());
        let config = args.serve.config().unwrap();
        assert_eq!(config.leaf_ttl, Duration::from_secs(5));
        assert_eq!(config.trust_domain, TrustDomain::default());
        assert_eq!(config.constraints, Constraints::On);
    }

    #[test]
    fn what_is_missing_or_wrong_is_an_error() {
        for line in [
            "ca",
            "ca --mesh m --state s",
            "ca token a",
            "ca --mesh m --state s --listen 127.0.0.1:1 --leaf-ttl 1s",
            "ca --mesh m --state s --listen 127.0.0.1:1 --leaf-ttl 5",
            "ca --mesh m --state s --listen 127.0.0.1:1 --trust-domain A/B",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }

    #[test]
    fn tokens_are_made_listed_and_revoked() {
        let scratch = Scratch::new("args-tokens");
        let run = |line: &str| {
            let line = format!("ca {line} --state {}/s", scratch.path().display());
            parse(&line).unwrap().command.unwrap().run().unwrap()
        };
        assert!(run("token node-a").starts_with("culvert1:node-a:"));
        assert!(run("tokens").contains("  node-a  "));
        assert_eq!(run("revoke node-a"), "1 revoked\n");
        assert_eq!(run("tokens"), "");
    }
}

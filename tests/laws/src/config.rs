//! What an operator writes into flags and variables.
//!
//! Lines: `--flag=value` or `VARIABLE=value`.
//! Laws: it is a configuration or a list of mistakes, each with what was given; the same twice; a
//! configuration keeps the limits that it promises.

use std::collections::BTreeMap;

use shared::config::Given;
use ztunnel::config::{Config, RUN, warnings};

use crate::planted;

/// Checks the laws on one input.
pub fn check(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let mut flags = BTreeMap::new();
    let mut environment = BTreeMap::new();
    for line in text.lines() {
        let Some((name, value)) = line.split_once('=') else { continue };
        match name.strip_prefix("--") {
            Some(name) => {
                if let Some(setting) = RUN.iter().find(|setting| setting.flag == name) {
                    flags.insert(setting.flag, value.to_owned());
                }
            }
            None => drop(environment.insert(name.to_owned(), value.to_owned())),
        }
    }
    let source = Given::new(flags, &environment);
    for warning in warnings(&source) {
        assert!(!warning.is_empty());
    }
    match (Config::parse(&source), Config::parse(&source)) {
        (Ok(config), Ok(again)) => {
            let shown = format!("{config:?}");
            assert_eq!(shown, format!("{again:?}"));
            keeps_its_limits(&config);
        }
        (Err(mistakes), Err(again)) => {
            assert_eq!(mistakes, again);
            assert!(!mistakes.is_empty(), "refused without a reason");
            for mistake in mistakes {
                let text = mistake.to_string();
                assert!(!text.contains('\n'), "{text:?} forges a line");
                planted(text.starts_with("HTTP2_STREAM_WINDOW_SIZE and"));
            }
        }
        _ => panic!("parsed differently the second time"),
    }
}

fn keeps_its_limits(config: &Config) {
    assert!(config.process.workers > 0 && config.process.workers <= 1024);
    assert!(config.node.is_some() || config.dedicated.is_some());
    assert!(config.servers.admin.ip().to_canonical().is_loopback(), "open to the world");
    let tunnel = config.tunnel;
    assert!(tunnel.connection_window_bytes > tunnel.stream_window_bytes);
    assert!((1 << 16..1 << 31).contains(&tunnel.stream_window_bytes));
    assert!((1 << 14..1 << 24).contains(&tunnel.max_frame_bytes));
    assert!((1..=10_000).contains(&tunnel.max_streams));
}

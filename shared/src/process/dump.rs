//! The sections of `/config_dump` that both programs have. Nothing in them is secret.

use serde::Serialize;
use serde_json::{Value, json};

use crate::config::Process;
use crate::identity::{CertStore, Snapshot, State};

/// What runs here.
pub fn version(process: &Process) -> Value {
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "buildProfile": if cfg!(debug_assertions) { "debug" } else { "release" },
        "istioVersion": process.istio_version,
        "cryptoProvider": "aws-lc",
    })
}

/// Things as a list.
pub fn list<T: Serialize>(items: impl Iterator<Item = T>) -> Value {
    items.map(|item| json!(item)).collect()
}

/// The certificates, without their keys.
pub fn certificates(store: &CertStore) -> Value {
    store.snapshot().iter().map(certificate).collect()
}

fn certificate(snapshot: &Snapshot) -> Value {
    let state = match (snapshot.state, &snapshot.error) {
        (State::Initializing, _) => "Initializing".to_owned(),
        (State::Available, _) => "Available".to_owned(),
        (State::Unavailable, None) => "Unavailable".to_owned(),
        (State::Unavailable, Some(error)) => format!("Unavailable: {error}"),
    };
    let chain: Vec<Value> = snapshot
        .serial
        .iter()
        .map(|serial| {
            json!({
                "serialNumber": serial,
                "validFrom": snapshot.not_before.map(date),
                "expirationTime": snapshot.not_after.map(date),
            })
        })
        .collect();
    json!({
        "identity": snapshot.identity,
        "state": state,
        "certChain": chain,
        "rootDigests": snapshot.roots,
        "lastError": snapshot.error,
    })
}

/// RFC 3339 in UTC. The calendar is counted in eras of 400 years that begin in March.
fn date(unix: u64) -> String {
    let (days, second) = (unix / 86_400 + 719_468, unix % 86_400);
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_follow_the_calendar() {
        for (unix, expected) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_709_251_200, "2024-03-01T00:00:00Z"),
            (4_102_444_799, "2099-12-31T23:59:59Z"),
        ] {
            assert_eq!(date(unix), expected);
        }
    }
}

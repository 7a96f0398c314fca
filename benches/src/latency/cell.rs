//! What is measured, apart from through what.

use serde::{Deserialize, Serialize};

/// Which way bulk goes, seen from the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Direction {
    /// From the client to the server.
    Up,
    /// From the server to the client.
    Down,
}

/// One measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Cell {
    /// Requests come at this rate, whatever the answers do.
    Open {
        /// Per second, over all connections.
        rate: u32,
        /// Kept open.
        connections: u32,
    },
    /// The same, but all connections have their requests due at the same moments.
    Burst {
        /// Per second, over all connections.
        rate: u32,
        /// Kept open.
        connections: u32,
    },
    /// Each connection sends its next request when it has the answer to the last.
    Closed {
        /// Kept open.
        connections: u32,
    },
    /// A new connection for each request, as many as possible.
    Fresh {
        /// At the same time.
        connections: u32,
    },
    /// Bytes, as many as possible.
    Bulk {
        /// TCP connections.
        streams: u32,
        /// Which way.
        direction: Direction,
    },
    /// Connections that do nothing.
    Idle {
        /// How many.
        connections: u32,
    },
}

impl Cell {
    /// All of them, in the order of the report.
    pub(super) fn all() -> Vec<Self> {
        let mut cells = Vec::new();
        for connections in [16, 64] {
            for rate in [1_000, 3_200, 12_800] {
                cells.push(Self::Open { rate, connections });
            }
        }
        cells.push(Self::Burst { rate: 3_200, connections: 16 });
        cells.push(Self::Closed { connections: 64 });
        cells.push(Self::Fresh { connections: 16 });
        for streams in [1, 16] {
            for direction in [Direction::Up, Direction::Down] {
                cells.push(Self::Bulk { streams, direction });
            }
        }
        cells.push(Self::Idle { connections: 5_000 });
        cells
    }

    /// Requests per second that are asked for, where that is fixed.
    pub(super) fn asked_rate(self) -> Option<u32> {
        match self {
            Self::Open { rate, .. } | Self::Burst { rate, .. } => Some(rate),
            _ => None,
        }
    }

    /// Whether it is about connections that do nothing.
    pub(super) fn is_idle(self) -> bool {
        matches!(self, Self::Idle { .. })
    }

    /// A short name, for the command line and for files.
    pub(super) fn name(self) -> String {
        match self {
            Self::Open { rate, connections } => format!("open-{rate}-{connections}"),
            Self::Burst { rate, connections } => format!("burst-{rate}-{connections}"),
            Self::Closed { connections } => format!("max-{connections}"),
            Self::Fresh { connections } => format!("fresh-{connections}"),
            Self::Bulk { streams, direction: Direction::Up } => format!("bulk-up-{streams}"),
            Self::Bulk { streams, direction: Direction::Down } => format!("bulk-down-{streams}"),
            Self::Idle { connections } => format!("idle-{connections}"),
        }
    }

    /// What it is, for a heading.
    pub(super) fn title(self) -> String {
        match self {
            Self::Open { rate, connections } => {
                format!("{} req/s, {connections} connections", thousands(rate))
            }
            Self::Burst { rate, connections } => {
                format!("{} req/s, {connections} at the same moment", thousands(rate))
            }
            Self::Closed { connections } => format!("maximum, {connections} connections"),
            Self::Fresh { connections } => {
                format!("new connection per request, {connections} at a time")
            }
            Self::Bulk { streams: 1, direction: Direction::Up } => "bulk, 1 stream up".to_owned(),
            Self::Bulk { streams: 1, direction: Direction::Down } => {
                "bulk, 1 stream down".to_owned()
            }
            Self::Bulk { streams, direction } => {
                let direction = if direction == Direction::Up { "up" } else { "down" };
                format!("bulk, {streams} streams {direction}")
            }
            Self::Idle { connections } => format!("{} idle connections", thousands(connections)),
        }
    }
}

/// 12800 as `12,800`.
pub(super) fn thousands(number: u32) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique() {
        let mut names: Vec<_> = Cell::all().into_iter().map(Cell::name).collect();
        let all = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), all);
    }

    #[test]
    fn thousands_are_set_apart() {
        assert_eq!([0, 999, 1000, 1_234_567].map(thousands), ["0", "999", "1,000", "1,234,567"]);
    }
}

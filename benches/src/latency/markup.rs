//! What HTML and SVG have in common: colours.

use super::mode::Mode;

/// The colour of a mode in every chart; readable on a light and on a dark ground.
pub(super) fn colour(mode: Mode) -> &'static str {
    match mode {
        Mode::Direct => "#8a919c",
        Mode::Library => "#8f6fc9",
        Mode::CulvertL4 => "#1f9e89",
        Mode::CulvertL7 => "#2f7fb8",
        Mode::SameNode => "#7fae3f",
        Mode::Handover => "#4f7d2a",
        Mode::EnvoyWaypoint => "#c2589f",
        Mode::Sidecar => "#d9534f",
        Mode::TlsRelay => "#d99a2b",
    }
}

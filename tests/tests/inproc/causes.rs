//! Each way in which a connection can fail, by what produces it.

mod far;
mod flowing;
mod taking;
mod way;

use super::suite::Case;

/// All of them.
pub(crate) const CASES: &[&[Case]] = &[far::CASES, flowing::CASES, taking::CASES, way::CASES];

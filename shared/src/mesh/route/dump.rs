//! Routes as `/config_dump` spells them.

use std::fmt::Display;
use std::sync::Arc;

use http::{HeaderName, HeaderValue, Method};
use serde::{Serialize, Serializer};

use super::{RouteFilters, RouteKey, Target};

impl Serialize for RouteKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

pub(super) fn text<S: Serializer>(value: &impl Display, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

pub(super) fn texts<S: Serializer>(
    values: &[impl Display],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(values.iter().map(ToString::to_string))
}

/// A list, or `*`.
pub(super) fn list<S: Serializer>(
    values: &Option<Box<[impl Display]>>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match values {
        Some(values) => texts(values, serializer),
        None => texts(&["*"], serializer),
    }
}

pub(super) fn method<S: Serializer>(
    method: &Option<Method>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    method.as_ref().map(Method::as_str).serialize(serializer)
}

pub(super) fn value<S: Serializer>(
    value: &Option<HeaderValue>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    value.as_ref().map(readable).serialize(serializer)
}

pub(super) fn headers<S: Serializer>(
    headers: &[(HeaderName, HeaderValue)],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_map(headers.iter().map(|(name, value)| (name.as_str(), readable(value))))
}

pub(super) fn body<S: Serializer>(body: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&String::from_utf8_lossy(body))
}

pub(super) fn target<S: Serializer>(target: &Target, serializer: S) -> Result<S::Ok, S::Error> {
    match target {
        Ok(destination) => serializer.collect_str(destination),
        Err(reason) => serializer.collect_str(&format_args!("invalid: {reason}")),
    }
}

pub(super) fn changes_nothing(filters: &Arc<RouteFilters>) -> bool {
    **filters == RouteFilters::default()
}

fn readable(value: &HeaderValue) -> String {
    String::from_utf8_lossy(value.as_bytes()).into_owned()
}

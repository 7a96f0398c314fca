//! The part of a policy that only a waypoint can see, and how it compares.
//!
//! Law: what is asked and cannot be seen, or could be read in two ways, is decided for the side that
//! lets less through: an allowing rule needs it to hold in every reading, a denying one in any.
//! Source: spec L7 §4.2, §4.3.

use http::{HeaderMap, HeaderName};
use serde::{Serialize, Serializer};

use crate::authz::{HttpFacts, Inside, StringMatch, Template};

/// One conjunction over what is inside a tunnel. Lists are as in [`Match`](crate::authz::Match).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct InsideMatch {
    /// Host with its port as the client wrote it; in lower case.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<StringMatch>,
    /// None of these.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub not_hosts: Vec<StringMatch>,
    /// Method.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub methods: Vec<StringMatch>,
    /// None of these.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub not_methods: Vec<StringMatch>,
    /// Path without its query, in its normal form.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub paths: Vec<PathRule>,
    /// None of these.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub not_paths: Vec<PathRule>,
    /// A header.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub header: Option<HeaderRule>,
    /// The name that TLS inside asks for; "" without one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub server_names: Vec<StringMatch>,
    /// None of these.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub not_server_names: Vec<StringMatch>,
    /// It asks for something that no proxy of ours sees, such as a token.
    pub unseen: bool,
}

/// How the path of a policy compares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathRule {
    /// As a text.
    Text(StringMatch),
    /// Segment by segment.
    Template(Template),
}

/// What a header must be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HeaderRule {
    /// Its name.
    #[serde(serialize_with = "as_text")]
    pub name: HeaderName,
    /// Any of these.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<StringMatch>,
    /// None of these.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub not_values: Vec<StringMatch>,
}

fn as_text<S: Serializer>(name: &HeaderName, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(name.as_str())
}

impl Serialize for PathRule {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Text(text) => text.serialize(serializer),
            Self::Template(template) => serializer.collect_str(template),
        }
    }
}

/// Which of two readings counts, where there are two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reading {
    /// The one in which less matches: of rules that allow.
    Narrow,
    /// The one in which more matches: of rules that deny.
    Wide,
}

impl Reading {
    /// What something that cannot be seen counts as.
    fn unseen(self) -> bool {
        self == Self::Wide
    }

    fn opposite(self) -> Self {
        match self {
            Self::Narrow => Self::Wide,
            Self::Wide => Self::Narrow,
        }
    }
}

impl InsideMatch {
    /// Whether all that it asks about can be seen in `inside`.
    pub(super) fn is_visible(&self, inside: &Inside<'_>) -> bool {
        let of_bytes = self.asks_for_server_name();
        !self.unseen
            && match inside {
                Inside::Unseen => !(self.asks_for_http() || of_bytes),
                Inside::Bytes { .. } => !self.asks_for_http(),
                Inside::Http(http) => self.header.is_none() || http.headers.is_some(),
            }
    }

    fn asks_for_http(&self) -> bool {
        let texts = [&self.hosts, &self.not_hosts, &self.methods, &self.not_methods];
        self.header.is_some()
            || texts.iter().any(|list| !list.is_empty())
            || !(self.paths.is_empty() && self.not_paths.is_empty())
    }

    fn asks_for_server_name(&self) -> bool {
        !(self.server_names.is_empty() && self.not_server_names.is_empty())
    }

    pub(super) fn matches(&self, inside: &Inside<'_>, reading: Reading) -> bool {
        if self.unseen && !reading.unseen() {
            return false;
        }
        let http = match inside {
            Inside::Http(http) => self.matches_request(http, reading),
            _ => !self.asks_for_http() || reading.unseen(),
        };
        let name = match inside {
            Inside::Unseen => !self.asks_for_server_name() || reading.unseen(),
            Inside::Bytes { server_name } => self.matches_name(server_name.unwrap_or_default()),
            // A request that we can read is inside no TLS.
            Inside::Http(_) => self.matches_name(""),
        };
        http && name
    }

    fn matches_request(&self, http: &HttpFacts<'_>, reading: Reading) -> bool {
        fn is(value: &str) -> impl Fn(&StringMatch) -> bool {
            move |one| one.matches(value)
        }
        let path = |one: &PathRule| one.matches(http.path);
        super::matching::holds(&self.hosts, &self.not_hosts, is(&http.host))
            && super::matching::holds(&self.methods, &self.not_methods, is(http.method))
            && super::matching::holds(&self.paths, &self.not_paths, path)
            && match (&self.header, http.headers) {
                (None, _) => true,
                (Some(rule), Some(headers)) => rule.matches(headers, reading),
                (Some(_), None) => reading.unseen(),
            }
    }

    fn matches_name(&self, name: &str) -> bool {
        super::matching::holds(&self.server_names, &self.not_server_names, |one| one.matches(name))
    }
}

impl PathRule {
    fn matches(&self, path: &str) -> bool {
        match self {
            Self::Text(text) => text.matches(path),
            Self::Template(template) => template.matches(path),
        }
    }
}

impl HeaderRule {
    fn matches(&self, headers: &HeaderMap, reading: Reading) -> bool {
        (self.values.is_empty() || self.has(headers, &self.values, reading))
            && !self.has(headers, &self.not_values, reading.opposite())
    }

    /// A header that is sent several times has several readings: each of its values, and all of
    /// them in one list.
    fn has(&self, headers: &HeaderMap, wanted: &[StringMatch], reading: Reading) -> bool {
        let mut values = headers.get_all(&self.name).iter();
        let is_wanted = |value: &http::HeaderValue| {
            wanted.iter().any(|one| one.matches_bytes(value.as_bytes()))
        };
        match reading {
            Reading::Wide => values.any(is_wanted),
            Reading::Narrow => headers.contains_key(&self.name) && values.all(is_wanted),
        }
    }
}

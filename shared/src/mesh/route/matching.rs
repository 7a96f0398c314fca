//! What a request must look like.

use std::fmt;
use std::sync::Arc;

use http::{HeaderName, Method};
use regex::bytes::{Regex, RegexBuilder};
use serde::Serialize;

/// Conditions that must all hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HttpMatch {
    /// Path without query.
    pub path: PathMatch,
    /// Request headers; each name once.
    #[serde(skip_serializing_if = "<[HeaderMatch]>::is_empty")]
    pub headers: Box<[HeaderMatch]>,
    /// Query parameters; each name once.
    #[serde(skip_serializing_if = "<[QueryMatch]>::is_empty")]
    pub query: Box<[QueryMatch]>,
    /// Method.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "super::dump::method")]
    pub method: Option<Method>,
}

impl HttpMatch {
    /// What a rule without matches has: every path.
    pub fn everything() -> Self {
        let path = PathMatch::Prefix("".into());
        Self { path, headers: Box::default(), query: Box::default(), method: None }
    }
}

/// What a path must look like.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum PathMatch {
    /// The whole path.
    Exact(Arc<str>),
    /// Whole segments. Without a slash at the end, so that "" is the prefix of every path.
    Prefix(Arc<str>),
    /// The whole path is in the language of the expression.
    Regex(Pattern),
    /// Nothing is asked of it: a gRPC match without service and method.
    Any,
}

/// A header and its value; several of one name count as one, joined with commas.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HeaderMatch {
    /// Name.
    #[serde(serialize_with = "super::dump::text")]
    pub name: HeaderName,
    /// Value.
    pub value: ValueMatch,
}

/// A query parameter and its value, as they are in the URI; of several of one name the first counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct QueryMatch {
    /// Name.
    pub name: Arc<str>,
    /// Value.
    pub value: ValueMatch,
}

/// What a value must look like.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum ValueMatch {
    /// The whole value.
    Exact(Arc<str>),
    /// The whole value is in the language of the expression.
    Regex(Pattern),
}

impl ValueMatch {
    /// Whether `value` is as asked for.
    pub fn is_match(&self, value: &[u8]) -> bool {
        match self {
            Self::Exact(text) => text.as_bytes() == value,
            Self::Regex(pattern) => pattern.is_match(value),
        }
    }
}

/// 256 KiB: what one expression may take when compiled. Some 5,000 letters, or 1,000 Unicode
/// classes less the tables they share; more would be memory taken by one line of YAML.
const PATTERN_BYTES: usize = 256 * 1024;

/// 64 KiB: what the automaton of one expression may take per thread that uses it, beyond which it
/// is slower.
const AUTOMATON_BYTES: usize = 64 * 1024;

/// A regular expression that the whole of a text must match, in linear time (as RE2).
/// Equal when written alike.
#[derive(Clone)]
pub struct Pattern {
    text: Arc<str>,
    regex: Regex,
}

/// Why a text is no expression.
#[derive(Debug, thiserror::Error)]
pub enum PatternError {
    /// As the parser says it.
    #[error("is no regular expression: {0}")]
    Syntax(String),
    /// More than the limit when compiled.
    #[error("takes more than 256 KiB when compiled")]
    TooLarge,
}

impl Pattern {
    /// Compiles `text`.
    ///
    /// # Errors
    /// When it is no expression by itself, or a too large one.
    pub fn new(text: &str) -> Result<Self, PatternError> {
        // By itself first: "a)|(b" is none, though it would be one inside a group.
        compile(text)?;
        let regex = compile(&format!(r"\A(?:{text})\z"))?;
        Ok(Self { text: text.into(), regex })
    }

    /// Whether all of `value` matches.
    pub fn is_match(&self, value: &[u8]) -> bool {
        self.regex.is_match(value)
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

fn compile(text: &str) -> Result<Regex, PatternError> {
    let mut builder = RegexBuilder::new(text);
    builder.size_limit(PATTERN_BYTES).dfa_size_limit(AUTOMATON_BYTES).nest_limit(64);
    builder.build().map_err(|error| match error {
        regex::Error::CompiledTooBig(_) => PatternError::TooLarge,
        other => {
            // The parser draws several lines with a caret; the last one says what is wrong.
            let drawn = other.to_string();
            let last = drawn.lines().last().unwrap_or("").trim_start_matches("error: ");
            PatternError::Syntax(last.to_owned())
        }
    })
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Pattern {}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Pattern").field(&self.text).finish()
    }
}

impl Serialize for Pattern {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_the_whole_value() {
        for (pattern, value, expected) in [
            ("a|b", "a", true),
            ("a|b", "ab", false),
            ("/v[0-9]+/.*", "/v12/x", true),
            ("/v[0-9]+", "/v12\n", false),
            ("", "", true),
            ("(?i)two", "TWO", true),
        ] {
            let pattern = Pattern::new(pattern).unwrap();
            assert_eq!(pattern.is_match(value.as_bytes()), expected, "{pattern:?} on {value:?}");
        }
    }

    #[test]
    fn patterns_that_are_none_say_why() {
        for (pattern, reason) in [
            ("a)|(b", "is no regular expression: unopened group"),
            ("(", "is no regular expression: unclosed group"),
            (
                "(?=a)",
                "is no regular expression: look-around, including look-ahead and \
                       look-behind, is not supported",
            ),
            (r"\w{5000}", "takes more than 256 KiB when compiled"),
        ] {
            assert_eq!(Pattern::new(pattern).unwrap_err().to_string(), reason, "{pattern}");
        }
    }
}

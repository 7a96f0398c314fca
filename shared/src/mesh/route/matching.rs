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
    /// What only a `VirtualService` asks for.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub further: Option<Box<Further>>,
}

impl HttpMatch {
    /// What a rule without matches has: every path.
    pub fn everything() -> Self {
        let path = PathMatch::Prefix("".into());
        Self { path, headers: Box::default(), query: Box::default(), method: None, further: None }
    }

    /// The only port of the service; `None` for all.
    pub fn port(&self) -> Option<u16> {
        self.further.as_ref()?.port
    }
}

/// What only a `VirtualService` asks for; of several conditions all must hold.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Further {
    /// The port of the service that was dialled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Scheme.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scheme: Option<ValueMatch>,
    /// Method, where it is no exact one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub methods: Option<ValueMatch>,
    /// Host and port, as the client wrote them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub authority: Option<ValueMatch>,
    /// Headers that must not be so; one that is missing is not.
    #[serde(skip_serializing_if = "<[HeaderMatch]>::is_empty")]
    pub without_headers: Box<[HeaderMatch]>,
    /// Namespace that the client proved to be of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_namespace: Option<Arc<str>>,
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
    /// Its first letters, which may end within a segment. Of a `VirtualService`, as the next.
    #[serde(rename_all = "camelCase")]
    Start {
        /// The letters.
        text: Arc<str>,
        /// Whether ASCII letters are compared in any case.
        any_case: bool,
    },
    /// The whole path, in any case of ASCII letters.
    ExactAnyCase(Arc<str>),
}

impl PathMatch {
    /// Whether a path, without query, is as asked for.
    pub fn is_match(&self, path: &str) -> bool {
        match self {
            Self::Exact(own) => **own == *path,
            // "" is the prefix of every path that begins with a slash: not of "*".
            Self::Prefix(own) => path
                .strip_prefix(&**own)
                .is_some_and(|rest| rest.starts_with('/') || (rest.is_empty() && !own.is_empty())),
            Self::Regex(pattern) => pattern.is_match(path.as_bytes()),
            Self::Any => true,
            Self::Start { text, any_case: false } => path.starts_with(&**text),
            Self::Start { text, any_case: true } => {
                path.get(..text.len()).is_some_and(|start| start.eq_ignore_ascii_case(text))
            }
            Self::ExactAnyCase(own) => own.eq_ignore_ascii_case(path),
        }
    }

    /// How much of a path that matches stands for the prefix; `None` when it is no prefix.
    pub fn prefix_bytes(&self) -> Option<usize> {
        match self {
            Self::Prefix(text) | Self::Start { text, .. } => Some(text.len()),
            Self::Exact(_) | Self::Regex(_) | Self::Any | Self::ExactAnyCase(_) => None,
        }
    }
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
    /// It begins so. Of a `VirtualService`, as the next.
    Start(Arc<str>),
    /// It is there.
    Present,
}

impl ValueMatch {
    /// Whether `value` is as asked for.
    pub fn is_match(&self, value: &[u8]) -> bool {
        match self {
            Self::Exact(text) => text.as_bytes() == value,
            Self::Regex(pattern) => pattern.is_match(value),
            Self::Start(text) => value.starts_with(text.as_bytes()),
            Self::Present => true,
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

/// An expression within the limits of all.
pub(super) fn compile(text: &str) -> Result<Regex, PatternError> {
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
    fn paths_begin_with_letters_or_with_segments() {
        let start = |text: &str, any_case| PathMatch::Start { text: text.into(), any_case };
        for (wanted, path, expected) in [
            (PathMatch::Prefix("/a".into()), "/a", true),
            (PathMatch::Prefix("/a".into()), "/a/b", true),
            (PathMatch::Prefix("/a".into()), "/ab", false),
            (PathMatch::Prefix("".into()), "/", true),
            (PathMatch::Prefix("".into()), "*", false),
            (start("/a", false), "/ab", true),
            (start("/a", false), "/Ab", false),
            (start("/a", true), "/Ab", true),
            (start("/ab", true), "/a", false),
            (start("/x", true), "/é", false),
            (PathMatch::ExactAnyCase("/a".into()), "/A", true),
            (PathMatch::ExactAnyCase("/a".into()), "/A/", false),
        ] {
            assert_eq!(wanted.is_match(path), expected, "{wanted:?} on {path}");
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

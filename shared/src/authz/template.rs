//! Paths by segments: `/shops/{*}/orders/{**}`.
//!
//! Source: Istio AuthorizationPolicy, Envoy `uri_template`; spec L7 §4.3.

use std::fmt;
use std::str::FromStr;

/// A pattern of a path, segment by segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    text: Box<str>,
    /// The segments before `{**}`, or all of them.
    segments: Box<[Segment]>,
    /// What follows `{**}`; none without it.
    end: Option<Box<str>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Segment {
    Literal(Box<str>),
    /// `{*}`: exactly one, which is not empty.
    One,
}

/// Why a text is no template.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// It does not begin with a slash.
    #[error("a path template begins with a slash")]
    NotAPath,
    /// An asterisk or a brace that is no operator.
    #[error("a segment of a path template is {{*}}, {{**}} or a text without *, {{ and }}")]
    Segment,
    /// An operator follows `{**}`.
    #[error("{{**}} must be the last operator of a path template")]
    AfterAny,
}

impl Template {
    /// Whether a text is meant as one.
    pub fn is_meant(text: &str) -> bool {
        text.contains("{*}") || text.contains("{**}")
    }

    /// Whether all of `path` has this shape.
    pub fn matches(&self, path: &str) -> bool {
        let mut rest = path;
        for segment in &self.segments {
            let Some(after) = rest.strip_prefix('/') else { return false };
            let end = after.find('/').unwrap_or(after.len());
            let fits = match segment {
                Segment::Literal(text) => after[..end] == **text,
                Segment::One => end > 0,
            };
            if !fits {
                return false;
            }
            rest = &after[end..];
        }
        match &self.end {
            None => rest.is_empty(),
            Some(end) => rest.strip_prefix('/').is_some_and(|rest| rest.ends_with(&**end)),
        }
    }
}

impl FromStr for Template {
    type Err = TemplateError;

    fn from_str(text: &str) -> Result<Self, TemplateError> {
        let rest = text.strip_prefix('/').ok_or(TemplateError::NotAPath)?;
        let (mut segments, mut end) = (Vec::new(), None::<String>);
        for part in rest.split('/') {
            let literal = !part.contains(['*', '{', '}']);
            match (&mut end, part) {
                (None, "{*}") => segments.push(Segment::One),
                (None, "{**}") => end = Some(String::new()),
                (None, _) if literal => segments.push(Segment::Literal(part.into())),
                (Some(end), _) if literal => {
                    end.push('/');
                    end.push_str(part);
                }
                (Some(_), "{*}" | "{**}") => return Err(TemplateError::AfterAny),
                _ => return Err(TemplateError::Segment),
            }
        }
        Ok(Self { text: text.into(), segments: segments.into(), end: end.map(Into::into) })
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operators_stand_for_segments() {
        for (template, path, expected) in [
            ("/foo/{*}", "/foo/bar", true),
            ("/foo/{*}", "/foo/bar/baz", false),
            ("/foo/{*}", "/foo/", false),
            ("/foo/{*}", "/foo", false),
            ("/foo/{*}/", "/foo/bar/", true),
            ("/foo/{*}/", "/foo/bar", false),
            ("/{*}/bar", "/foo/bar", true),
            ("/foo/{**}", "/foo/", true),
            ("/foo/{**}", "/foo/bar/baz.txt", true),
            ("/foo/{**}", "/foo", false),
            ("/foo/{**}", "/food/bar", false),
            ("/foo/{**}/", "/foo/bar/", true),
            ("/foo/{**}/", "/foo//", true),
            ("/foo/{**}/", "/foo/bar", false),
            ("/foo/{*}/bar/{**}", "/foo/buzz/bar/", true),
            ("/foo/{*}/bar/{**}", "/foo/buzz/bar/baz", true),
            ("/foo/{*}/bar/{**}", "/foo/bar/baz", false),
            ("/Foo/{*}", "/foo/bar", false),
        ] {
            let parsed: Template = template.parse().unwrap();
            assert_eq!(parsed.matches(path), expected, "{template} on {path}");
        }
    }

    #[test]
    fn what_is_no_template_is_refused() {
        for (text, error) in [
            ("foo/{*}", TemplateError::NotAPath),
            ("/a{*}", TemplateError::Segment),
            ("/{*}*", TemplateError::Segment),
            ("/*/{*}", TemplateError::Segment),
            ("/{**}/{*}", TemplateError::AfterAny),
            ("/{**}/{**}", TemplateError::AfterAny),
            ("/{x}/{*}", TemplateError::Segment),
        ] {
            assert_eq!(text.parse::<Template>(), Err(error), "{text}");
        }
    }
}

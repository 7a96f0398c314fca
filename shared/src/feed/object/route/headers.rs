//! `requestHeaderModifier` and `responseHeaderModifier`.

use http::uri::Authority;
use http::{HeaderName, HeaderValue, header};

use crate::feed::fields::Fields;
use crate::feed::verdict::Cause;
use crate::mesh::HeaderChanges;

use super::required;

/// Which headers are changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::feed::object) enum Side {
    Request,
    Response,
}

/// Headers that belong to one connection or delimit a message. A filter that wrote them could make
/// two servers see different messages (RFC 9112 §11.2).
const FRAMING: &[&str] = &[
    "connection",
    "content-length",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

pub(super) fn read(fields: &Fields<'_>, side: Side) -> HeaderChanges {
    if fields.texts("remove").len() > 16 {
        fields.report("remove", Cause::Invalid, "has more than 16 entries");
    }
    HeaderChanges {
        set: pairs(fields, "set", side),
        add: pairs(fields, "add", side),
        remove: removed(fields, side),
    }
}

/// The headers in `remove`, each once.
pub(in crate::feed::object) fn removed(fields: &Fields<'_>, side: Side) -> Box<[HeaderName]> {
    let mut removed: Vec<HeaderName> = Vec::new();
    for text in fields.texts("remove") {
        let Some(name) = name(fields, "remove", text) else { continue };
        if side == Side::Request && name == header::HOST {
            fields.report("remove", Cause::Unsupported, "a request always has a host");
        } else if !removed.contains(&name) {
            removed.push(name);
        }
    }
    removed.into()
}

/// Of several entries of one name the first counts.
fn pairs(fields: &Fields<'_>, list: &str, side: Side) -> Box<[(HeaderName, HeaderValue)]> {
    let mut pairs: Vec<(HeaderName, HeaderValue)> = Vec::new();
    for one in fields.at_most(list, 16) {
        let (text, value) = (required(&one, "name", 256), required(&one, "value", 4096));
        let (Some(text), Some(value)) = (text, value) else { continue };
        let Some(name) = name(&one, "name", text) else { continue };
        let is_host = side == Side::Request && name == header::HOST;
        let Some(parsed) = self::value(&one, "value", value, is_host) else { continue };
        if pairs.iter().any(|(earlier, _)| *earlier == name) {
            one.report("name", Cause::Shadowed, "the list has this header already");
            continue;
        }
        pairs.push((name, parsed));
    }
    pairs.into()
}

/// The name of a header that may be changed; `field` of `fields` has it.
pub(in crate::feed::object) fn name(
    fields: &Fields<'_>,
    field: &str,
    text: &str,
) -> Option<HeaderName> {
    let Ok(name) = HeaderName::try_from(text) else {
        fields.report(field, Cause::Invalid, format_args!("\"{text}\" is no header name"));
        return None;
    };
    if FRAMING.contains(&name.as_str()) {
        let reason = format!("{name} is the proxy's own and is left as it is");
        fields.report(field, Cause::Unsupported, reason);
        return None;
    }
    Some(name)
}

/// The value of a header, which is a host in a request's `Host`; `field` of `fields` has it.
pub(in crate::feed::object) fn value(
    fields: &Fields<'_>,
    field: &str,
    text: &str,
    is_host: bool,
) -> Option<HeaderValue> {
    let Ok(value) = HeaderValue::from_str(text) else {
        fields.report(field, Cause::Invalid, "has a letter that a header cannot have");
        return None;
    };
    if is_host && Authority::try_from(text).map_or(true, |host| host.as_str().contains('@')) {
        fields.report(field, Cause::Invalid, "is no host");
        return None;
    }
    Some(value)
}

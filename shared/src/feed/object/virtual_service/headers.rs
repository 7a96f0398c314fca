//! `headers`: what is done to the headers of requests and responses.

use http::{HeaderName, HeaderValue, header};

use crate::feed::fields::Fields;
use crate::feed::object::route::headers::{Side, name as header_name, removed, value};
use crate::feed::verdict::Cause;
use crate::mesh::HeaderChanges;

/// Those of requests and of responses.
pub(super) fn read(fields: &Fields<'_>) -> (HeaderChanges, HeaderChanges) {
    let of = |name: &str, side| fields.fields(name).map(|one| changes(&one, side));
    (
        of("request", Side::Request).unwrap_or_default(),
        of("response", Side::Response).unwrap_or_default(),
    )
}

fn changes(fields: &Fields<'_>, side: Side) -> HeaderChanges {
    HeaderChanges {
        set: pairs(fields, "set", side),
        add: pairs(fields, "add", side),
        remove: removed(fields, side),
    }
}

/// In the order of their names, as Istio has them.
fn pairs(fields: &Fields<'_>, name: &str, side: Side) -> Box<[(HeaderName, HeaderValue)]> {
    let mut texts = fields.pairs(name);
    texts.sort_unstable();
    let Some(map) = fields.fields(name) else { return Box::default() };
    let mut pairs: Vec<(HeaderName, HeaderValue)> = Vec::new();
    for (key, text) in texts {
        // Envoy's word for the host of a request.
        let key_read = if side == Side::Request && key == ":authority" { "host" } else { key };
        let Some(name) = header_name(&map, key, key_read) else { continue };
        if text.contains('%') {
            let reason = "Envoy would read what stands behind a % as a command, which is not \
                          supported: the header is left out";
            map.report(key, Cause::Unsupported, reason);
            continue;
        }
        let is_host = side == Side::Request && name == header::HOST;
        let Some(value) = value(&map, key, text, is_host) else { continue };
        if pairs.iter().any(|(earlier, _)| *earlier == name) {
            map.report(key, Cause::Shadowed, "the list has this header already");
            continue;
        }
        pairs.push((name, value));
    }
    pairs.into()
}

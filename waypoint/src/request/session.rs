//! Sessions: requests that show where an earlier one was answered go there again.
//!
//! A session is `endpoint . begun . used`: which endpoint of which rule (a digest, so that no two
//! rules share one), and two times in seconds. It is no secret and no proof: whoever makes one up
//! reaches an endpoint that the rule has anyway.
//! Invariants: an endpoint that is gone, or a session that is too old, is as none; the answer then
//! carries a new one.
//! Source: Gateway API GEP-1619; spec L7 §2.8.

use std::time::SystemTime;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::{COOKIE, SET_COOKIE};
use http::{HeaderMap, HeaderValue};
use shared::mesh::{Mesh, Session, SessionKind};

use crate::request::aim;
use crate::router::{Backend, Rule};
use crate::tunnel::Client;
use crate::upstream::Endpoint;

/// Of the digest. 16 bytes are as good as none in common.
const DIGEST_BYTES: usize = 16;
const TOKEN_BYTES: usize = DIGEST_BYTES + 16;

/// The session of one request, old or new.
pub(super) struct Held<'t> {
    rule: &'t Rule,
    session: &'t Session,
    /// Where it was answered before.
    pub(super) found: Option<(&'t Backend, Endpoint)>,
    begun: u64,
    now: u64,
}

/// The session that a request of `rule` shows; none where the rule has no sessions.
pub(super) fn find<'t>(
    rule: &'t Rule,
    headers: &HeaderMap,
    mesh: &Mesh,
    client: &Client,
) -> Option<Held<'t>> {
    let session = rule.session.as_deref()?;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let now = now.map_or(0, |since| since.as_secs());
    let new = Held { rule, session, found: None, begun: now, now };
    let alive = |token: &Token| {
        let within = |since: u64, limit: Option<std::time::Duration>| {
            limit.is_none_or(|limit| now.saturating_sub(since) <= limit.as_secs())
        };
        within(token.begun, session.absolute_timeout) && within(token.used, session.idle_timeout)
    };
    let shown = shown(session, headers).filter_map(|text| Token::parse(&text)).filter(alive);
    for token in shown {
        for backend in rule.backends() {
            let Ok(aim) = aim(mesh, &backend.destination) else { continue };
            let cluster = client.worker.upstream.cluster(mesh, client, aim);
            let meant = cluster.endpoints().iter().find(|one| mark(rule, one) == token.endpoint);
            if let Some(endpoint) = meant {
                let found = Some((backend, endpoint.clone()));
                return Some(Held { found, begun: token.begun, ..new });
            }
        }
    }
    Some(new)
}

impl Held<'_> {
    /// Tells the client where it was answered, unless it knows.
    pub(super) fn tell(&self, answered: &Endpoint, headers: &mut HeaderMap) {
        let same = self.found.as_ref().is_some_and(|(_, found)| found.address == answered.address);
        if same && self.session.idle_timeout.is_none() {
            return;
        }
        let begun = if same { self.begun } else { self.now };
        let token = Token { endpoint: mark(self.rule, answered), begun, used: self.now };
        match &self.session.kind {
            SessionKind::Cookie { name, permanent } => {
                let age = self.session.absolute_timeout.filter(|_| *permanent);
                let age = age.map(|age| format!("; Max-Age={}", age.as_secs())).unwrap_or_default();
                let text =
                    format!("{name}={}; Path=/; HttpOnly; SameSite=Strict{age}", token.text());
                if let Ok(value) = HeaderValue::try_from(text) {
                    headers.append(SET_COOKIE, value);
                }
            }
            SessionKind::Header(name) => {
                if let Ok(value) = HeaderValue::try_from(token.text()) {
                    headers.insert(name, value);
                }
            }
        }
    }
}

/// Every value that the request shows for a session, in its order.
fn shown(session: &Session, headers: &HeaderMap) -> impl Iterator<Item = String> {
    let mut values = Vec::new();
    match &session.kind {
        SessionKind::Header(name) => {
            let texts = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
            values.extend(texts.map(str::to_owned));
        }
        SessionKind::Cookie { name, .. } => {
            let lines = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
            let pairs =
                lines.flat_map(|line| line.split(';')).filter_map(|one| one.split_once('='));
            let own = pairs.filter(|(own, _)| own.trim() == &**name);
            values.extend(own.map(|(_, value)| value.trim().to_owned()));
        }
    }
    values.into_iter()
}

/// What an endpoint is called within a rule.
fn mark(rule: &Rule, endpoint: &Endpoint) -> [u8; DIGEST_BYTES] {
    let text = format!("{} {} {}", rule.label(), rule.at(), endpoint.address);
    let whole = digest(&SHA256, text.as_bytes());
    let mut mark = [0; DIGEST_BYTES];
    mark.copy_from_slice(&whole.as_ref()[..DIGEST_BYTES]);
    mark
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Token {
    endpoint: [u8; DIGEST_BYTES],
    begun: u64,
    used: u64,
}

impl Token {
    fn parse(text: &str) -> Option<Self> {
        let mut bytes = [0; TOKEN_BYTES];
        let count = URL_SAFE_NO_PAD.decode_slice(text, &mut bytes).ok()?;
        let (endpoint, times) = bytes.split_at(DIGEST_BYTES);
        let (begun, used) = times.split_at(8);
        let number = |bytes: &[u8]| bytes.try_into().ok().map(u64::from_be_bytes);
        (count == TOKEN_BYTES).then_some(Self {
            endpoint: endpoint.try_into().ok()?,
            begun: number(begun)?,
            used: number(used)?,
        })
    }

    fn text(self) -> String {
        let times = [self.begun.to_be_bytes(), self.used.to_be_bytes()].concat();
        URL_SAFE_NO_PAD.encode([&self.endpoint[..], &times].concat())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_as_it_was_written_and_nothing_else_is() {
        let token = Token { endpoint: [7; DIGEST_BYTES], begun: 1_800_000_000, used: u64::MAX };
        assert_eq!(Token::parse(&token.text()), Some(token));
        for text in ["", "AAAA", "not base64!", &"A".repeat(400), &format!("{}A", token.text())] {
            assert_eq!(Token::parse(text), None, "{text}");
        }
    }

    #[test]
    fn every_cookie_of_the_name_counts() {
        let name = "session".into();
        let kind = SessionKind::Cookie { name, permanent: false };
        let session = Session { kind, absolute_timeout: None, idle_timeout: None };
        let mut headers = HeaderMap::new();
        headers.append(COOKIE, HeaderValue::from_static("a=1; session=one; sessions=no"));
        headers.append(COOKIE, HeaderValue::from_static("session=two"));
        assert_eq!(shown(&session, &headers).collect::<Vec<_>>(), ["one", "two"]);
    }
}

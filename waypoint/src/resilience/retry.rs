//! Whether a request is sent once more.
//!
//! Invariants: what may have been delivered is repeated only if its method is idempotent or the
//! route's owner allowed it; what was not delivered is repeated whatever its method.
//! Source: design D8; RFC 9110 §9.2.2; Gateway API GEP-1731.

use http::{HeaderName, Method, Response};
use shared::mesh::Retry;

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const PROXY_STATUS: HeaderName = HeaderName::from_static("proxy-status");
const RATE_LIMITED: HeaderName = HeaderName::from_static("x-envoy-ratelimited");
/// How [`PROXY_STATUS`] begins when a hop like this one has given up.
const OURS: &[u8] = b"culvert;";

/// How an attempt ended that gave no answer to pass on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// No byte of it reached an application.
    Undelivered,
    /// The same: the connection had rested, and was closed before the request began.
    Stale,
    /// Nobody knows whether the application acts on it.
    Unknown {
        /// The connection had carried a request before: it may have been closed while it rested.
        reused: bool,
    },
    /// There was no answer within the time of one attempt.
    Late,
    /// The answer is one for which the route wants another.
    Answered,
    /// It would end alike anywhere.
    Final,
}

/// What is known of a request, and of what its route wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// Its method may be repeated (RFC 9110 §9.2.2).
    pub idempotent: bool,
    /// The route's owner allows to repeat any method.
    pub opted_in: bool,
    /// The route wants another attempt after such an end.
    pub asked: bool,
    /// All of it is still here.
    pub whole: bool,
}

/// What follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It may be sent once more; it cannot have two effects.
    Safe,
    /// It may be sent once more because the route's owner says so.
    OptedIn,
    /// Another attempt might succeed, and must not be made.
    Unsafe,
    /// Another attempt is not wanted.
    No,
}

/// Whether a request that ended so is sent once more.
#[must_use]
pub fn verdict(ended: Ended, terms: Terms) -> Verdict {
    let may = match () {
        () if !terms.whole => Verdict::Unsafe,
        () if terms.idempotent => Verdict::Safe,
        () if terms.opted_in => Verdict::OptedIn,
        () => Verdict::Unsafe,
    };
    match ended {
        Ended::Final => Verdict::No,
        Ended::Undelivered | Ended::Stale if terms.whole => Verdict::Safe,
        Ended::Undelivered | Ended::Stale => Verdict::Unsafe,
        Ended::Unknown { reused } if reused || terms.asked => may,
        Ended::Late | Ended::Answered if terms.asked => may,
        Ended::Unknown { .. } if may == Verdict::Unsafe => may,
        Ended::Unknown { .. } | Ended::Late | Ended::Answered => Verdict::No,
    }
}

/// How an attempt ended that was answered so; none for an answer to pass on.
///
/// A hop nearer to the failure that has given up is not asked again: with each hop that repeats what
/// the next one has repeated, attempts would multiply.
#[must_use]
pub fn ended<B>(response: &Response<B>, retry: Option<&Retry>) -> Option<Ended> {
    let retry = retry?;
    let headers = response.headers();
    let says = |name, is: &dyn Fn(&[u8]) -> bool| {
        headers.get(name).is_some_and(|value: &http::HeaderValue| is(value.as_bytes()))
    };
    let number = |text: &[u8]| std::str::from_utf8(text).ok()?.parse::<u8>().ok();
    let is_retried = retry.names(response.status().as_u16())
        || says(GRPC_STATUS, &|status| number(status).is_some_and(|one| retry.grpc.contains(&one)));
    let given_up = says(PROXY_STATUS, &|status| status.starts_with(OURS));
    // Envoy: what came too early is not helped by coming at once.
    let given_up = given_up || headers.contains_key(RATE_LIMITED);
    (is_retried && !given_up).then_some(Ended::Answered)
}

/// RFC 9110 §9.2.2.
#[must_use]
pub fn is_idempotent(method: &Method) -> bool {
    matches!(
        *method,
        Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE | Method::PUT | Method::DELETE
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_end() -> impl Strategy<Value = Ended> {
        prop_oneof![
            Just(Ended::Undelivered),
            Just(Ended::Stale),
            any::<bool>().prop_map(|reused| Ended::Unknown { reused }),
            Just(Ended::Late),
            Just(Ended::Answered),
            Just(Ended::Final),
        ]
    }

    fn any_terms() -> impl Strategy<Value = Terms> {
        any::<[bool; 4]>().prop_map(|[idempotent, opted_in, asked, whole]| Terms {
            idempotent,
            opted_in,
            asked,
            whole,
        })
    }

    proptest! {
        /// D8: nothing runs twice unless that is harmless or allowed.
        #[test]
        fn nothing_that_may_have_been_delivered_is_repeated_without_leave(
            ended in any_end(),
            terms in any_terms(),
        ) {
            let undelivered = matches!(ended, Ended::Undelivered | Ended::Stale);
            match verdict(ended, terms) {
                Verdict::Safe => prop_assert!(terms.whole && (undelivered || terms.idempotent)),
                Verdict::OptedIn => {
                    prop_assert!(terms.whole && terms.opted_in && !terms.idempotent);
                }
                Verdict::Unsafe | Verdict::No => {}
            }
        }

        #[test]
        fn what_was_not_delivered_is_repeated_whatever_it_is(terms in any_terms()) {
            let terms = Terms { whole: true, ..terms };
            prop_assert_eq!(verdict(Ended::Undelivered, terms), Verdict::Safe);
            prop_assert_eq!(verdict(Ended::Stale, terms), Verdict::Safe);
        }
    }

    #[test]
    fn answers_that_the_route_names_are_repeated_unless_a_nearer_hop_gave_up() {
        let retry = Retry {
            codes: [503].into(),
            server_errors: false,
            grpc: Retry::GRPC.into(),
            broken: true,
            attempts: 2,
            backoff: None,
            delivered: false,
        };
        let answer = |status: u16, header: Option<(&str, &str)>| {
            let builder = Response::builder().status(status);
            let builder =
                header.into_iter().fold(builder, |all, (name, value)| all.header(name, value));
            ended(&builder.body(()).unwrap(), Some(&retry))
        };
        assert_eq!(answer(503, None), Some(Ended::Answered));
        assert_eq!(answer(503, Some(("proxy-status", "other; details=x"))), Some(Ended::Answered));
        assert_eq!(answer(503, Some(("proxy-status", "culvert; details=UPSTREAM_CLOSED"))), None);
        assert_eq!(answer(503, Some(("x-envoy-ratelimited", "true"))), None);
        assert_eq!(answer(500, None), None);
        for (status, expected) in [("14", true), ("1", true), ("0", false), ("4", false)] {
            let repeated = answer(200, Some(("grpc-status", status))).is_some();
            assert_eq!(repeated, expected, "grpc-status {status}");
        }
        assert_eq!(ended(&Response::new(()), None), None);
        let all = Retry { server_errors: true, ..retry };
        let status = |status: u16| Response::builder().status(status).body(()).unwrap();
        assert_eq!(ended(&status(599), Some(&all)), Some(Ended::Answered));
        assert_eq!(ended(&status(499), Some(&all)), None);
    }

    #[test]
    fn each_end_has_its_verdict() {
        let get = Terms { idempotent: true, opted_in: false, asked: false, whole: true };
        let post = Terms { idempotent: false, ..get };
        let fresh = Ended::Unknown { reused: false };
        let reused = Ended::Unknown { reused: true };
        for (ended, terms, expected) in [
            (fresh, get, Verdict::No),
            (fresh, Terms { asked: true, ..get }, Verdict::Safe),
            (reused, get, Verdict::Safe),
            (reused, post, Verdict::Unsafe),
            (reused, Terms { opted_in: true, ..post }, Verdict::OptedIn),
            (fresh, post, Verdict::Unsafe),
            (Ended::Late, get, Verdict::No),
            (Ended::Late, Terms { asked: true, ..get }, Verdict::Safe),
            (Ended::Late, Terms { asked: true, ..post }, Verdict::Unsafe),
            (Ended::Answered, Terms { asked: true, opted_in: true, ..post }, Verdict::OptedIn),
            (Ended::Answered, Terms { asked: true, whole: false, ..get }, Verdict::Unsafe),
            (Ended::Final, Terms { asked: true, opted_in: true, ..get }, Verdict::No),
        ] {
            assert_eq!(verdict(ended, terms), expected, "{ended:?} {terms:?}");
        }
    }
}

//! What is done with the requests of a rule.

use std::time::Duration;

use http::StatusCode;

use crate::mesh::{AbortStatus, OriginMatch, Others, PathChange, RedirectPort, Retry};

use super::*;

#[test]
fn headers_are_in_the_order_of_their_names() {
    let rule = clean(&one(&format!(
        "headers: {{request: {{set: {{x-b: '1', ':authority': new.example, x-a: two}}, remove: [x-c]}}, \
         response: {{add: {{x-d: '3'}}}}}}, {TO_API}"
    )));
    let changes = &rule.filters.request_headers;
    let names: Vec<_> = changes.set.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["host", "x-a", "x-b"]);
    assert_eq!(changes.remove.len(), 1);
    assert_eq!(rule.filters.response_headers.add.len(), 1);
    let own =
        clean(&one("route: [{destination: {host: api}, headers: {request: {add: {x-own: '1'}}}}]"));
    assert_eq!(own.backends[0].filters.request_headers.add.len(), 1);
}

#[test]
fn redirects_answers_and_rewrites_are_as_they_are_written() {
    let redirect = clean(&one("redirect: {uri: /x, authority: 'new.example:81', scheme: https}"));
    let redirect = redirect.filters.redirect.clone().unwrap();
    assert_eq!(redirect.status, StatusCode::MOVED_PERMANENTLY);
    assert_eq!(redirect.path, Some(PathChange::Full("/x".into())));
    for (uri, fine) in [("/x?a=b", true), ("/x?a b", false), ("/x#a", false), ("/x?a#b", false)] {
        let compiled = compile(&one(&format!("redirect: {{uri: '{uri}'}}")));
        assert_eq!(remarks(&compiled).is_empty(), fine, "{uri}");
    }
    for (port, expected) in [
        ("uri: /x", RedirectPort::AsAsked),
        ("port: 81", RedirectPort::Said(81)),
        ("derivePort: FROM_PROTOCOL_DEFAULT", RedirectPort::OfScheme),
        ("derivePort: FROM_REQUEST_PORT", RedirectPort::Dialled),
    ] {
        let rule = clean(&one(&format!("redirect: {{{port}, redirectCode: 307}}")));
        let redirect = rule.filters.redirect.clone().unwrap();
        assert_eq!((redirect.port, redirect.status.as_u16()), (expected, 307), "{port}");
    }
    for (body, expected) in [
        ("status: 204", ""),
        ("status: 503, body: {string: no}", "no"),
        ("status: 200, body: {bytes: aGk=}", "hi"),
    ] {
        let rule = clean(&one(&format!("directResponse: {{{body}}}")));
        assert_eq!(rule.filters.direct.clone().unwrap().body, expected);
    }
    let rewritten = |rewrite: &str| {
        let rule = clean(&one(&format!("rewrite: {{{rewrite}}}, {TO_API}")));
        rule.filters.rewrite.clone().unwrap()
    };
    assert_eq!(rewritten("uri: /x").path, Some(PathChange::Start("/x".into())));
    assert_eq!(rewritten("authority: new.example").hostname.unwrap(), "new.example");
    let found = rewritten("uriRegexRewrite: {match: '^/a/(.*)', rewrite: '/b/\\1'}").path.unwrap();
    assert!(matches!(found, PathChange::Found(_)), "{found:?}");
}

#[test]
fn times_retries_mirrors_and_faults_are_as_they_are_written() {
    let text = one(&format!(
        "timeout: 5s, retries: {{attempts: 3, perTryTimeout: 1s, backoff: 10ms, \
         retryOn: 'gateway-error,connect-failure, retriable-4xx,504,unavailable'}}, \
         mirror: {{host: api}}, mirrorPercentage: {{value: 0.5}}, \
         fault: {{delay: {{fixedDelay: 2s, percentage: {{value: 10}}}}, \
         abort: {{grpcStatus: UNAVAILABLE, percentage: {{value: 0.0001}}}}}}, {TO_API}"
    ));
    let compiled = compile(&text);
    let told = remarks(&compiled);
    assert_eq!(told.len(), 1, "a remark on what is not repeated: {told:?}");
    assert_eq!((told[0].0, told[0].1), ("spec.http[0].retries", Cause::Default));
    let rule = &rules(only(&compiled))[0];
    let second = Duration::from_secs(1);
    assert_eq!(rule.timeouts.request, Some(5 * second));
    assert_eq!(rule.timeouts.backend_request, Some(second));
    let expected = Retry {
        codes: [409, 502, 503, 504].into(),
        server_errors: false,
        grpc: [14].into(),
        broken: true,
        attempts: 3,
        backoff: Some(Duration::from_millis(10)),
        delivered: false,
    };
    assert_eq!(rule.retry.as_deref(), Some(&expected));
    assert_eq!((rule.mirrors[0].numerator, rule.mirrors[0].denominator), (5_000, 1_000_000));
    let fault = rule.fault.as_deref().unwrap();
    assert_eq!(fault.delay.unwrap().time, 2 * second);
    assert_eq!(fault.abort.unwrap().status, AbortStatus::Grpc(14));
    assert_eq!(fault.abort.unwrap().share.millionths(), 1);
    let none =
        clean(&one(&format!("mirrors: [{{destination: {{host: api}}}}], timeout: 0s, {TO_API}")));
    assert_eq!((none.timeouts.request, none.retry), (None, None));
    assert_eq!(none.mirrors[0].numerator, 1_000_000);
}

#[test]
fn default_conditions_of_retries_are_istios_and_none_is_made_without_attempts() {
    let of = |retries: &str| {
        let annotated = ", annotations: {culvert.dev/retry-delivered: 'true'}";
        let spec = format!("hosts: [web], http: [{{retries: {{{retries}}}, {TO_API}}}]");
        let compiled = compile(&object("shop", annotated, &spec));
        let retry = rules(only(&compiled))[0].retry.clone().unwrap();
        let told = remarks(&compiled).iter().map(|one| one.1).collect::<Vec<_>>();
        (retry, told)
    };
    let (retry, told) = of("attempts: 2");
    assert_eq!(told, []);
    assert_eq!((&*retry.codes, &*retry.grpc), (&[][..], &[14, 1][..]));
    assert!(retry.delivered && !retry.broken && !retry.server_errors);
    assert_eq!(of("attempts: -1").0.attempts, 0);
    assert_eq!(of("retryOn: 5xx").1, [Cause::Default]);
    assert!(of("attempts: 1, retryOn: 5xx").0.server_errors);
    assert_eq!(of("attempts: 1, retryOn: retriable-headers").1, [Cause::Unsupported]);
    assert_eq!(of("attempts: 1, retryRemoteLocalities: true").1, [Cause::Unsupported]);
}

#[test]
fn annotations_limit_the_rate_of_requests() {
    let meta = ", annotations: {culvert.dev/rate-limit: 100/s}";
    let compiled = compile(&object("shop", meta, &format!("hosts: [web], http: [{{{TO_API}}}]")));
    assert_eq!(remarks(&compiled), []);
    let limits = only(&compiled).rate_limits.as_deref().copied().unwrap();
    assert_eq!(limits.together.map(|rate| rate.count), Some(100));
}

#[test]
fn origins_are_allowed_by_text_prefix_and_expression() {
    let rule = clean(&one(&format!(
        "corsPolicy: {{allowOrigins: [{{exact: 'https://a.example'}}, {{prefix: 'https://b'}}, \
         {{regex: 'https://.*'}}, {{exact: '*'}}], allowMethods: [GET], allowHeaders: ['*'], maxAge: 1m, \
         allowCredentials: true}}, {TO_API}"
    )));
    let cors = rule.filters.cors.clone().unwrap();
    assert_eq!(cors.origins[1], OriginMatch::Start("https://b".into()));
    assert_eq!(cors.origins[3], OriginMatch::Any);
    assert!(matches!(cors.origins[2], OriginMatch::Regex(_)));
    assert_eq!((cors.others, cors.headers), (Others::Forwarded, None));
    let ignored = clean(&one(&format!("corsPolicy: {{unmatchedPreflights: IGNORE}}, {TO_API}")));
    let cors = ignored.filters.cors.clone().unwrap();
    assert_eq!((cors.others, cors.max_age), (Others::Refused, None));
}

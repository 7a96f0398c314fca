//! What keeps an object out of force, and what is told about the rest.

use super::*;

#[test]
fn what_cannot_be_right_keeps_the_object_out() {
    for (rule, field) in [
        ("match: [{uri: {exact: a}}], route: [{destination: {host: api}}]", "uri"),
        ("match: [{uri: {exact: /a, prefix: /b}}], route: [{destination: {host: api}}]", "uri"),
        ("match: [{uri: {regex: '('}}], route: [{destination: {host: api}}]", "regex"),
        ("match: [{port: 0}], route: [{destination: {host: api}}]", "port"),
        ("match: [{method: {exact: 'a b'}}], route: [{destination: {host: api}}]", "method"),
        ("timeout: 1s", "http[0]"),
        ("redirect: {uri: /a}, route: [{destination: {host: api}}]", "http[0]"),
        ("redirect: {uri: a}", "uri"),
        ("redirect: {redirectCode: 300}", "redirectCode"),
        ("redirect: {port: 1, derivePort: FROM_REQUEST_PORT}", "derivePort"),
        ("directResponse: {status: 99}", "status"),
        ("directResponse: {status: 200, body: {bytes: '!'}}", "bytes"),
        ("redirect: {uri: /a}, rewrite: {uri: /b}", "rewrite"),
        ("rewrite: {}, route: [{destination: {host: api}}]", "rewrite"),
        (
            "rewrite: {uri: /a, uriRegexRewrite: {match: a, rewrite: b}}, route: [{destination: {host: api}}]",
            "uriRegexRewrite",
        ),
        (
            "rewrite: {uriRegexRewrite: {match: a, rewrite: '\\1'}}, route: [{destination: {host: api}}]",
            "uriRegexRewrite",
        ),
        ("route: [{destination: {host: '*.a'}}]", "host"),
        ("route: [{weight: 1}]", "destination"),
        ("route: [{destination: {host: api}, weight: 0}, {destination: {host: api}}]", "route"),
        ("fault: {}, route: [{destination: {host: api}}]", "fault"),
        (
            "fault: {abort: {httpStatus: 600, percentage: {value: 1}}}, route: [{destination: {host: api}}]",
            "httpStatus",
        ),
        (
            "fault: {abort: {grpcStatus: NO, percentage: {value: 1}}}, route: [{destination: {host: api}}]",
            "grpcStatus",
        ),
        (
            "fault: {delay: {fixedDelay: 2h, percentage: {value: 1}}}, route: [{destination: {host: api}}]",
            "fixedDelay",
        ),
        (
            "fault: {delay: {fixedDelay: 1s, percentage: {value: 101}}}, route: [{destination: {host: api}}]",
            "value",
        ),
        ("retries: {attempts: 101}, route: [{destination: {host: api}}]", "attempts"),
        ("timeout: soon, route: [{destination: {host: api}}]", "timeout"),
        (
            "corsPolicy: {allowMethods: ['a b']}, route: [{destination: {host: api}}]",
            "allowMethods",
        ),
    ] {
        let compiled = compile(&one(rule));
        let told = remarks(&compiled);
        let found = told.iter().any(|one| one.1 == Cause::Invalid && one.0.ends_with(field));
        assert!(found, "{rule}: {told:?}");
        assert!(compiled.routes.is_empty(), "{rule}");
    }
}

#[test]
fn what_is_not_acted_on_is_told() {
    let route = "route: [{destination: {host: api}}]";
    for (rule, field, cause) in [
        ("delegate: {name: other}".to_owned(), "delegate", Cause::Unsupported),
        (format!("match: [{{statPrefix: a}}], {route}"), "statPrefix", Cause::Unsupported),
        (
            format!("match: [{{headers: {{method: {{exact: GET}}}}}}], {route}"),
            "method",
            Cause::Unsupported,
        ),
        (
            format!("headers: {{request: {{set: {{x: '%REQ(a)%'}}}}}}, {route}"),
            "x",
            Cause::Unsupported,
        ),
        (
            format!("fault: {{delay: {{exponentialDelay: 1s}}}}, {route}"),
            "exponentialDelay",
            Cause::Unsupported,
        ),
        (format!("fault: {{abort: {{httpStatus: 500}}}}, {route}"), "percentage", Cause::Default),
        (
            format!("mirrorPercentage: {{value: 1}}, {route}"),
            "mirrorPercentage",
            Cause::Unsupported,
        ),
        (format!("nonsense: 1, {route}"), "nonsense", Cause::Unknown),
        (
            format!("match: [{{uri: {{regex: a}}, ignoreUriCase: true}}], {route}"),
            "ignoreUriCase",
            Cause::Unsupported,
        ),
    ] {
        let compiled = compile(&one(&rule));
        let told = remarks(&compiled);
        let found = told.iter().any(|one| one.1 == cause && one.0.contains(field));
        assert!(found, "{rule}: {told:?}");
        assert_eq!(compiled.routes.len(), 1, "{rule}");
    }
    let refused = compile(&one("delegate: {name: other}"));
    assert!(rules(only(&refused))[0].filters.refused.is_some());
    let shadowed = object("shop", "", &format!("hosts: [web], http: [{{{TO_API}}}, {{{TO_API}}}]"));
    assert_eq!(remarks(&compile(&shadowed))[0].1, Cause::Shadowed);
}

#[test]
fn a_bad_object_leaves_the_good_one_beside_it_in_force() {
    let bad =
        one("timeout: soon, route: [{destination: {host: api}}]").replace("name: v,", "name: bad,");
    let compiled = compile(&format!("{}{bad}", one(TO_API)));
    assert_eq!(&*only(&compiled).key.name, "v");
    assert!(compiled.verdicts.iter().all(|one| &*one.object == "VirtualService/shop/bad"));
}

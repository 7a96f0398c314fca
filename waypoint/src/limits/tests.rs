//! The limits of owners as the mesh changes, in virtual time.

use shared::mesh::{RateUnit, Route, Service, sample, writer};

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn rate(count: u32, burst: u32) -> Rate {
    Rate { count, unit: RateUnit::Second, burst }
}

fn together(rate: Rate) -> RateLimits {
    RateLimits { together: Some(rate), per_caller: None }
}

fn route_owner(name: &str) -> Owner {
    Owner::Route(route(name, None).key)
}

fn route(name: &str, rate_limits: Option<RateLimits>) -> Route {
    let web = sample::service_key("web", "shop");
    Route { rate_limits: rate_limits.map(Arc::new), ..sample::route(name, "shop", &web, vec![]) }
}

/// How many of `wanted` requests of `caller` pass at `now`.
fn passed(limiter: &Limiter, caller: &str, wanted: u32, now: Instant) -> u32 {
    let mut own = Own::default();
    let pass = |_: &u32| {
        limiter
            .has(caller, &mut own, now)
            .and_then(|()| limiter.take(caller, &mut own, now))
            .is_ok()
    };
    (0..wanted).filter(pass).count() as u32
}

#[tokio::test(start_paused = true)]
async fn an_unchanged_limit_goes_on_and_a_changed_one_begins_anew() {
    let (limiters, now) = (Limiters::default(), Instant::now());
    let of = |limits| limiters.of(route_owner("web"), limits);
    assert_eq!(passed(&of(together(rate(1, 5))), "a", 10, now), 5);
    assert_eq!(passed(&of(together(rate(1, 5))), "a", 10, now), 0);
    assert_eq!(passed(&of(together(rate(1, 6))), "a", 10, now), 6);
    assert_eq!(passed(&of(together(rate(1, 6))), "a", 10, now + 2 * SECOND), 2);
}

#[tokio::test(start_paused = true)]
async fn a_caller_over_its_own_limit_leaves_the_others_theirs() {
    let (limiters, now) = (Limiters::default(), Instant::now());
    let limits = RateLimits { together: Some(rate(1, 10)), per_caller: Some(rate(1, 4)) };
    let limiter = limiters.of(route_owner("web"), limits);
    assert_eq!(passed(&limiter, "greedy", 100, now), 4);
    assert_eq!(passed(&limiter, "one", 4, now), 4);
    assert_eq!(passed(&limiter, "other", 4, now), 2);
    assert_eq!(limiter.refused(Scope::PerCaller), 96);
    assert_eq!(limiter.refused(Scope::Together), 2);
    // Who was refused by the other limit still has its own tokens.
    assert_eq!(passed(&limiter, "other", 4, now + 2 * SECOND), 2);
}

#[tokio::test(start_paused = true)]
async fn who_is_limited_learns_why_and_for_how_long() {
    let (limiters, now) = (Limiters::default(), Instant::now());
    let limiter = limiters.of(route_owner("web"), together(rate(2, 1)));
    assert_eq!(passed(&limiter, "a", 1, now), 1);
    let limited = limiter.take("a", &mut None, now).unwrap_err();
    assert_eq!(limited.wait, SECOND / 2);
    let text = limited.to_string();
    assert!(text.contains("HTTPRoute/shop/web"), "{text}");
    assert!(text.contains("culvert.dev/rate-limit 2/s burst 1"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn limits_that_the_mesh_no_longer_has_are_forgotten_and_so_are_callers_at_rest() {
    let (limiters, now) = (Limiters::default(), Instant::now());
    let per_caller = RateLimits { together: None, per_caller: Some(rate(1, 1)) };
    let (mut writer, reader) = writer();
    let service =
        Service { rate_limits: Some(Arc::new(per_caller)), ..sample::service("web", "shop") };
    let owner = Owner::Service(service.key.clone());
    writer.apply([route("web", Some(per_caller)).into(), service.into()]);
    let kept: Vec<_> = [owner, route_owner("web")]
        .into_iter()
        .map(|owner| limiters.of(owner, per_caller))
        .collect();
    limiters.of(route_owner("gone"), per_caller);
    for limiter in &kept {
        assert_eq!(passed(limiter, "a", 2, now), 1);
    }
    limiters.tidy(&reader.load(), now);
    assert_eq!(limiters.list().len(), 2);
    assert!(kept.iter().all(|limiter| limiter.callers().len() == 1));
    limiters.tidy(&reader.load(), now + SECOND);
    assert!(kept.iter().all(|limiter| limiter.callers().is_empty()));
    writer.apply([route("web", None).into(), sample::service("web", "shop").into()]);
    limiters.tidy(&reader.load(), now + SECOND);
    assert!(limiters.list().is_empty());
}

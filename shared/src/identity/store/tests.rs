//! The store against an authority that the tests command, in virtual time.
//!
//! Certificates are judged by the wall clock, timers run on tokio's. A paused test does not move
//! the former, so each new certificate has its full life before it on both.

use std::time::Duration;

use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::time;

use super::*;
use crate::identity::test_util::TestCa;
use crate::identity::{CertificateError, TrustDomain};

const LIFETIME: Duration = Duration::from_secs(1000);

struct Scripted {
    ca: TestCa,
    script: Mutex<Script>,
}

struct Script {
    works: bool,
    lifetime: Duration,
    delay: Duration,
    answer_as: Option<SpiffeId>,
    attempts: usize,
    in_flight: usize,
    most_in_flight: usize,
}

impl Scripted {
    fn new() -> Arc<Self> {
        let script = Script {
            works: true,
            lifetime: LIFETIME,
            delay: Duration::from_millis(10),
            answer_as: None,
            attempts: 0,
            in_flight: 0,
            most_in_flight: 0,
        };
        Arc::new(Self { ca: TestCa::new(&TrustDomain::default()), script: Mutex::new(script) })
    }

    fn set_works(&self, works: bool) {
        self.script.lock().works = works;
    }

    fn attempts(&self) -> usize {
        self.script.lock().attempts
    }
}

impl Authority for Scripted {
    fn issue<'a>(&'a self, id: &'a SpiffeId) -> BoxFuture<'a, Result<WorkloadCertificate, Error>> {
        Box::pin(async move {
            let delay = {
                let mut script = self.script.lock();
                script.attempts += 1;
                script.in_flight += 1;
                script.most_in_flight = script.most_in_flight.max(script.in_flight);
                script.delay
            };
            time::sleep(delay).await;
            let mut script = self.script.lock();
            script.in_flight -= 1;
            if !script.works {
                let source = CertificateError::Chain;
                return Err(Error::Certificate { id: id.clone(), source });
            }
            let id = script.answer_as.as_ref().unwrap_or(id);
            Ok(self.ca.issue_for(id, script.lifetime))
        })
    }
}

fn id(name: &str) -> SpiffeId {
    format!("spiffe://cluster.local/ns/team/sa/{name}").parse().unwrap()
}

fn store(authority: &Arc<Scripted>) -> CertStore {
    let (store, task) = CertStore::new(Arc::clone(authority) as _, Config::default());
    tokio::spawn(task);
    store
}

#[tokio::test(start_paused = true)]
async fn who_waits_together_shares_one_attempt() {
    let authority = Scripted::new();
    let store = store(&authority);
    let a = id("a");
    let (one, two) = tokio::join!(store.certificate(&a), store.certificate(&a));
    assert!(Arc::ptr_eq(&one.unwrap(), &two.unwrap()));
    assert_eq!(authority.attempts(), 1);
    assert!(store.latest(&a).is_some());
    assert_eq!(store.snapshot()[0].state, State::Available);
}

/// As after the machine has slept: timers stand still while the certificate's own time goes on.
#[tokio::test(start_paused = true)]
async fn certificate_that_expired_unseen_is_not_handed_out_but_asked_for() {
    let authority = Scripted::new();
    authority.script.lock().lifetime = Duration::from_secs(2);
    let store = store(&authority);
    let begun = Instant::now();
    let first = store.certificate(&id("a")).await.unwrap();
    authority.script.lock().lifetime = LIFETIME;
    while first.not_after() > SystemTime::now() {
        std::thread::yield_now();
    }
    assert!(begun.elapsed() < Duration::from_secs(1), "no timer was due");
    assert!(store.latest(&id("a")).is_none());
    assert_ne!(store.snapshot()[0].state, State::Available);
    let second = store.certificate(&id("a")).await.unwrap();
    assert_ne!(second.serial(), first.serial());
    assert_eq!(authority.attempts(), 2);
}

#[tokio::test(start_paused = true)]
async fn certificate_is_replaced_at_about_half_of_its_life() {
    let authority = Scripted::new();
    let store = store(&authority);
    let first = store.certificate(&id("a")).await.unwrap();
    time::sleep(LIFETIME.mul_f64(0.44)).await;
    assert!(Arc::ptr_eq(&first, &store.latest(&id("a")).unwrap()));
    time::sleep(LIFETIME.mul_f64(0.12)).await;
    assert_ne!(store.latest(&id("a")).unwrap().serial(), first.serial());
    assert_eq!(authority.attempts(), 2);
}

#[tokio::test(start_paused = true)]
async fn nothing_fails_before_real_expiry_while_the_authority_is_away() {
    let authority = Scripted::new();
    let store = store(&authority);
    let first = store.certificate(&id("a")).await.unwrap();
    authority.set_works(false);
    for _ in 0..98 {
        time::sleep(LIFETIME / 100).await;
        let held = store.certificate(&id("a")).await.unwrap();
        assert_eq!(held.serial(), first.serial());
    }
    assert!(store.snapshot()[0].error.is_some());
    time::sleep(LIFETIME / 40).await;
    assert!(store.latest(&id("a")).is_none());
    store.certificate(&id("a")).await.unwrap_err();
    // And it comes back without anybody asking.
    authority.set_works(true);
    time::sleep(Duration::from_secs(20)).await;
    assert!(store.latest(&id("a")).is_some());
    assert!(store.snapshot()[0].error.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_renewal_that_fails_for_a_while_is_caught_up() {
    let authority = Scripted::new();
    let store = store(&authority);
    let first = store.certificate(&id("a")).await.unwrap();
    authority.set_works(false);
    time::sleep(LIFETIME.mul_f64(0.8)).await;
    authority.set_works(true);
    time::sleep(LIFETIME.mul_f64(0.1)).await;
    assert_ne!(store.latest(&id("a")).unwrap().serial(), first.serial());
}

#[tokio::test(start_paused = true)]
async fn after_a_failure_callers_get_its_error_at_once() {
    let authority = Scripted::new();
    authority.set_works(false);
    let store = store(&authority);
    store.certificate(&id("a")).await.unwrap_err();
    let asked = Instant::now();
    store.certificate(&id("a")).await.unwrap_err();
    assert_eq!(asked.elapsed(), Duration::ZERO);
    assert_eq!(authority.attempts(), 1);
    assert_eq!(store.snapshot()[0].state, State::Unavailable);
}

#[tokio::test(start_paused = true)]
async fn at_most_eight_ask_at_once() {
    let authority = Scripted::new();
    let store = store(&authority);
    for number in 0..50 {
        store.prefetch(&id(&format!("a{number}")));
    }
    time::sleep(Duration::from_secs(1)).await;
    assert_eq!(store.snapshot().len(), 50);
    assert!(store.snapshot().iter().all(|one| one.state == State::Available));
    assert_eq!(authority.script.lock().most_in_flight, 8);
}

#[tokio::test(start_paused = true)]
async fn forgotten_identities_are_not_renewed_and_can_come_back() {
    let authority = Scripted::new();
    let store = store(&authority);
    store.certificate(&id("a")).await.unwrap();
    store.forget(&id("a"));
    time::sleep(2 * LIFETIME).await;
    assert_eq!(authority.attempts(), 1);
    assert!(store.latest(&id("a")).is_none());
    assert!(store.snapshot().is_empty());
    store.certificate(&id("a")).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn forgetting_in_flight_breaks_off_and_wanting_again_starts_afresh() {
    let authority = Scripted::new();
    authority.script.lock().delay = Duration::from_secs(5);
    let store = store(&authority);
    store.prefetch(&id("a"));
    time::sleep(Duration::from_secs(1)).await;
    store.forget(&id("a"));
    store.prefetch(&id("a"));
    time::sleep(Duration::from_secs(20)).await;
    assert!(store.latest(&id("a")).is_some());
    assert_eq!(authority.attempts(), 2);
}

#[tokio::test(start_paused = true)]
async fn an_authority_that_hangs_does_not_hold_up_others_for_ever() {
    let authority = Scripted::new();
    authority.script.lock().delay = Duration::from_secs(3600);
    let store = store(&authority);
    let error = store.certificate(&id("a")).await.unwrap_err();
    assert!(matches!(error, Error::Timeout(_)));
}

#[tokio::test(start_paused = true)]
async fn a_certificate_of_somebody_else_is_refused() {
    let authority = Scripted::new();
    authority.script.lock().answer_as = Some(id("other"));
    let error = store(&authority).certificate(&id("a")).await.unwrap_err();
    assert!(matches!(error, Error::Mismatch { found, .. } if found == id("other")));
}

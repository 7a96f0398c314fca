//! Names of applications outside the mesh, and what they stand for.
//!
//! Invariants: names are asked for on the control thread, never by a request; of a name that cannot be
//! resolved any more the last good answer stays; names, addresses and questions at a time are bounded.
//! Source: Istio's ServiceEntry with resolution DNS; spec L7 §1.6.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use shared::mesh::{Mesh, Reader};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

/// How long an answer counts: the system's resolver does not tell how long it may be kept. Half of
/// Istio's 60 s; longer meets addresses that have moved, shorter asks for the same again.
const REFRESH: Duration = Duration::from_secs(30);
/// After the first failure; doubled up to [`REFRESH`].
const RETRY: Duration = Duration::from_secs(2);
/// What an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Names of a mesh; what is more is not resolved, and told.
const MOST_NAMES: usize = 1_000;
/// Addresses of one name.
const MOST_ADDRESSES: usize = 32;
/// Questions at a time: each has a thread while it waits.
const MOST_QUESTIONS: usize = 16;

/// What names stand for.
#[derive(Debug, Default)]
pub struct Answers {
    /// Counts changes.
    pub(super) generation: u64,
    by_name: HashMap<Arc<str>, Arc<[IpAddr]>>,
}

impl Answers {
    /// The addresses of a name; none while it is not resolved.
    pub(super) fn of(&self, name: &str) -> &[IpAddr] {
        self.by_name.get(name).map_or(&[], |addresses| addresses)
    }

    /// Names with their addresses, in order, for the eye.
    pub(crate) fn list(&self) -> Vec<(&str, &[IpAddr])> {
        let all = self.by_name.iter().map(|(name, addresses)| (&**name, &**addresses));
        let mut all: Vec<_> = all.collect();
        all.sort_unstable();
        all
    }
}

/// The names of a mesh, without clock and network.
#[derive(Debug, Default)]
struct Names {
    known: HashMap<Arc<str>, Name>,
}

#[derive(Debug)]
struct Name {
    addresses: Option<Arc<[IpAddr]>>,
    /// When it is to be asked for; none while it is.
    due: Option<Instant>,
    failures: u32,
}

impl Names {
    /// Only these are of interest; they are in order. True when an answer is no longer.
    fn want(&mut self, wanted: &[Arc<str>], now: Instant) -> bool {
        let before = self.known.len();
        self.known.retain(|name, _| wanted.binary_search(name).is_ok());
        let gone = self.known.len() < before;
        for name in wanted.iter().take(MOST_NAMES) {
            let new = || Name { addresses: None, due: Some(now), failures: 0 };
            self.known.entry(Arc::clone(name)).or_insert_with(new);
        }
        gone
    }

    /// Takes what is to be asked for now, as far as there is room.
    fn due(&mut self, now: Instant) -> Vec<Arc<str>> {
        let asking = self.known.values().filter(|one| one.due.is_none()).count();
        let due = self.known.iter_mut().filter(|(_, one)| one.due.is_some_and(|due| due <= now));
        due.take(MOST_QUESTIONS.saturating_sub(asking))
            .map(|(name, one)| {
                one.due = None;
                Arc::clone(name)
            })
            .collect()
    }

    /// When there is something to be asked for, unless answers come first.
    fn next(&self) -> Option<Instant> {
        let asking = self.known.values().filter(|one| one.due.is_none()).count();
        let next = self.known.values().filter_map(|one| one.due).min();
        next.filter(|_| asking < MOST_QUESTIONS)
    }

    /// An answer, or none. True when it is a new one.
    fn answered(&mut self, name: &str, found: Option<Vec<IpAddr>>, now: Instant) -> bool {
        let Some(known) = self.known.get_mut(name) else { return false };
        let Some(mut addresses) = found else {
            let wait = RETRY * 2_u32.saturating_pow(known.failures.min(8));
            known.failures = known.failures.saturating_add(1);
            known.due = Some(now + wait.min(REFRESH));
            return false;
        };
        addresses.sort_unstable();
        addresses.dedup();
        addresses.truncate(MOST_ADDRESSES);
        known.failures = 0;
        known.due = Some(now + REFRESH);
        let new = known.addresses.as_deref() != Some(&addresses);
        if new {
            known.addresses = Some(addresses.into());
        }
        new
    }

    fn answers(&self, generation: u64) -> Answers {
        let resolved = self.known.iter().filter_map(|(name, one)| {
            Some((Arc::clone(name), Arc::clone(one.addresses.as_ref()?)))
        });
        Answers { generation, by_name: resolved.collect() }
    }
}

/// Resolves the names of the mesh as long as somebody wants to know.
pub(crate) async fn keep_resolving(mesh: Reader, told: watch::Sender<Arc<Answers>>) {
    let mut changed = mesh.changed();
    let mut names = Names::default();
    let mut asking = JoinSet::new();
    let mut generation = 0;
    let mut news = names.want(&wanted(&mesh.load()), Instant::now());
    loop {
        if news {
            generation += 1;
            told.send_replace(Arc::new(names.answers(generation)));
        }
        for name in names.due(Instant::now()) {
            asking.spawn(ask(name));
        }
        let next = names.next();
        let wait = async {
            match next {
                Some(next) => sleep_until(next).await,
                None => std::future::pending().await,
            }
        };
        news = tokio::select! {
            alive = changed.changed() => match alive {
                Ok(()) => names.want(&wanted(&mesh.load()), Instant::now()),
                Err(_) => return,
            },
            () = told.closed() => return,
            () = wait => false,
            Some(answered) = asking.join_next() => match answered {
                Ok((name, found)) => names.answered(&name, found, Instant::now()),
                Err(_) => false,
            },
        };
    }
}

async fn ask(name: Arc<str>) -> (Arc<str>, Option<Vec<IpAddr>>) {
    let found = match timeout(PATIENCE, tokio::net::lookup_host((&*name, 0))).await {
        Ok(found) => found.map(|found| found.map(|one| one.ip().to_canonical()).collect()),
        Err(_) => Err(std::io::ErrorKind::TimedOut.into()),
    };
    let found: Result<Vec<IpAddr>, _> = found;
    if let Err(error) = &found {
        tracing::warn!(%name, %error, "name of an application is not resolved");
    }
    let found = found.ok().filter(|addresses| !addresses.is_empty());
    (name, found)
}

/// The names that stand for addresses, in order, each once.
fn wanted(mesh: &Mesh) -> Vec<Arc<str>> {
    let mut names: Vec<Arc<str>> = mesh
        .named_workloads()
        .filter(|workload| workload.addresses.is_empty())
        .filter_map(|workload| workload.hostname.clone())
        .filter(|name| !name.contains('*'))
        .collect();
    names.dedup();
    if names.len() > MOST_NAMES {
        let left = names.len() - MOST_NAMES;
        tracing::warn!(left, most = MOST_NAMES, "too many names: some are not resolved");
        names.truncate(MOST_NAMES);
    }
    names
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn names(count: usize) -> Vec<Arc<str>> {
        let mut all: Vec<Arc<str>> = (0..count).map(|number| format!("n{number}").into()).collect();
        all.sort_unstable();
        all
    }

    fn ip(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    #[test]
    fn an_answer_is_asked_for_again_and_the_last_good_one_stays() {
        let mut all = Names::default();
        let start = Instant::now();
        assert!(!all.want(&names(1), start));
        assert_eq!(all.due(start).len(), 1);
        assert!(all.due(start).is_empty(), "it is being asked for");
        assert!(all.answered("n0", Some(vec![ip(2), ip(1), ip(2)]), start));
        assert_eq!(all.answers(1).of("n0"), [ip(1), ip(2)]);
        assert_eq!(all.next(), Some(start + REFRESH));
        let later = start + REFRESH;
        assert_eq!(all.due(later).len(), 1);
        assert!(!all.answered("n0", Some(vec![ip(1), ip(2)]), later), "the same is no news");
        assert_eq!(all.due(later + REFRESH).len(), 1);
        assert!(!all.answered("n0", None, later + REFRESH));
        assert_eq!(all.answers(1).of("n0").len(), 2, "the last good answer stays");
        assert_eq!(all.next(), Some(later + REFRESH + RETRY));
    }

    #[test]
    fn failures_are_asked_for_less_and_less_often() {
        let mut all = Names::default();
        let mut now = Instant::now();
        all.want(&names(1), now);
        let mut waits = Vec::new();
        for _ in 0..6 {
            all.due(now);
            all.answered("n0", None, now);
            let next = all.next().unwrap();
            waits.push((next - now).as_secs());
            now = next;
        }
        assert_eq!(waits, [2, 4, 8, 16, 30, 30]);
    }

    #[test]
    fn what_nobody_wants_is_forgotten() {
        let mut all = Names::default();
        let now = Instant::now();
        all.want(&names(2), now);
        all.due(now);
        all.answered("n1", Some(vec![ip(1)]), now);
        assert!(all.want(&names(1), now));
        assert!(all.answers(1).of("n1").is_empty());
        assert!(!all.answered("n1", Some(vec![ip(1)]), now), "a late answer is nobody's");
    }

    proptest! {
        /// Questions at a time and names are bounded, and nothing waits for ever.
        #[test]
        fn questions_are_bounded_and_all_are_asked(
            count in 0..2_000usize,
            fails in prop::collection::vec(any::<bool>(), 1..8),
        ) {
            let mut all = Names::default();
            let mut now = Instant::now();
            all.want(&names(count), now);
            let mut asked = std::collections::HashSet::new();
            let mut rounds = 0;
            while asked.len() < count.min(MOST_NAMES) {
                let due = all.due(now);
                prop_assert!(due.len() <= MOST_QUESTIONS);
                for (name, fails) in due.iter().zip(fails.iter().cycle()) {
                    all.answered(name, (!fails).then(|| vec![ip(1)]), now);
                    asked.insert(Arc::clone(name));
                }
                now = all.next().unwrap_or(now).max(now);
                rounds += 1;
                prop_assert!(rounds < 10_000);
            }
            prop_assert!(all.known.len() <= MOST_NAMES);
        }
    }
}

//! Which endpoint a key belongs to: a ring, or a Maglev table.
//!
//! Invariants: the same endpoints give the same table everywhere, in whatever order they come; every
//! endpoint with a weight is found from every key. On a ring the keys of one endpoint that leaves
//! are all that move, about its share; a Maglev table is more even and moves a few keys more.
//! Source: Envoy's ring hash and Maglev (spec L7 §3.4); Maglev, NSDI 2016, §3.4.

use crate::balance::hash::xxh64;
use crate::mesh::HashTable;

/// Places of a ring for each endpoint, so that shares differ by some 3 %; with fewer, one that leaves
/// may move half as many keys again as its share.
const PLACES_EACH: usize = 1_024;
/// Most places of a ring: 768 KiB.
const MOST_PLACES: usize = 65_536;

/// Endpoints by key.
#[derive(Debug)]
pub enum Table {
    /// Hashes in ascending order, and whose they are.
    Ring(Box<[(u64, u32)]>),
    /// Whose a hash is, by its remainder.
    Maglev(Box<[u32]>),
}

impl Table {
    /// The table of endpoints with these names and weights; those of weight 0 have no place.
    pub fn new(kind: HashTable, endpoints: &[(String, u32)]) -> Self {
        match kind {
            HashTable::Ring(least) => Self::ring(least as usize, endpoints),
            HashTable::Maglev(size) => Self::maglev(size as usize, endpoints),
        }
    }

    /// The endpoints in the order in which a key prefers them, each once.
    pub fn order(&self, key: u64) -> impl Iterator<Item = usize> {
        let (start, count) = match self {
            Self::Ring(places) => (places.partition_point(|(hash, _)| *hash < key), places.len()),
            Self::Maglev(places) => {
                let count = places.len().max(1) as u64;
                ((key % count) as usize, places.len())
            }
        };
        let at = move |place: usize| match self {
            Self::Ring(places) => places[place % count].1 as usize,
            Self::Maglev(places) => places[place % count] as usize,
        };
        let mut seen = Vec::new();
        (0..count).filter_map(move |step| {
            let endpoint = at(start + step);
            (!seen.contains(&endpoint)).then(|| {
                seen.push(endpoint);
                endpoint
            })
        })
    }

    fn ring(least: usize, endpoints: &[(String, u32)]) -> Self {
        let all: u64 = endpoints.iter().map(|(_, weight)| u64::from(*weight)).sum();
        let count = endpoints.iter().filter(|(_, weight)| *weight > 0).count();
        let size = (PLACES_EACH * count).max(least).min(MOST_PLACES) as u64;
        let mut places = Vec::with_capacity(size as usize + count);
        for (at, (name, weight)) in endpoints.iter().enumerate().filter(|(_, (_, w))| *w > 0) {
            let own = (size * u64::from(*weight)).div_ceil(all);
            for number in 0..own {
                let hash = xxh64(format!("{name}_{number}").as_bytes(), 0);
                places.push((hash, at as u32));
            }
        }
        // Of equal hashes the smaller name comes first, so that order says nothing.
        places.sort_unstable_by(|one, other| {
            let name = |place: &(u64, u32)| &endpoints[place.1 as usize].0;
            one.0.cmp(&other.0).then_with(|| name(one).cmp(name(other)))
        });
        Self::Ring(places.into())
    }

    fn maglev(size: usize, endpoints: &[(String, u32)]) -> Self {
        let heaviest = endpoints.iter().map(|(_, weight)| *weight).max().unwrap_or(0);
        if heaviest == 0 || size == 0 {
            return Self::Maglev(Box::default());
        }
        let mut turns: Vec<Turn> = endpoints
            .iter()
            .enumerate()
            .filter(|(_, (_, weight))| *weight > 0)
            .map(|(at, (name, weight))| Turn::new(at, name, *weight, size))
            .collect();
        turns.sort_by(|one, other| endpoints[one.at].0.cmp(&endpoints[other.at].0));
        let mut places = vec![u32::MAX; size];
        let mut left = size;
        for round in 1.. {
            for turn in &mut turns {
                // Envoy: an endpoint of half the weight takes every other turn.
                if u64::from(turn.weight) * round < turn.due {
                    continue;
                }
                turn.due += u64::from(heaviest);
                let place = turn.next_free(&places);
                places[place] = turn.at as u32;
                left -= 1;
                if left == 0 {
                    return Self::Maglev(places.into());
                }
            }
        }
        Self::Maglev(places.into())
    }
}

/// One endpoint that takes places of a Maglev table.
struct Turn {
    at: usize,
    weight: u32,
    /// Weight by rounds from which on it takes the next place.
    due: u64,
    next: usize,
    skip: usize,
}

impl Turn {
    fn new(at: usize, name: &str, weight: u32, size: usize) -> Self {
        let modulo = |hash: u64, size: usize| (hash % size.max(1) as u64) as usize;
        let next = modulo(xxh64(name.as_bytes(), 0), size);
        let skip = modulo(xxh64(name.as_bytes(), 1), size.saturating_sub(1)) + 1;
        Self { at, weight, due: u64::from(weight), next, skip }
    }

    /// The next free place of its own order, which comes to every place because the size is prime.
    fn next_free(&mut self, places: &[u32]) -> usize {
        loop {
            let place = self.next;
            self.next = (self.next + self.skip) % places.len();
            if places[place] == u32::MAX {
                return place;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RING: HashTable = HashTable::Ring(1_024);
    const MAGLEV: HashTable = HashTable::Maglev(65_537);

    fn names(base: u32, count: u32) -> Vec<(String, u32)> {
        let name = |number: u32| {
            let address = std::net::Ipv4Addr::from(base.wrapping_add(number));
            (format!("{address}:8080"), 1)
        };
        (0..count).map(name).collect()
    }

    fn first<'a>(table: &Table, endpoints: &'a [(String, u32)], key: u64) -> &'a str {
        &endpoints[table.order(key).next().unwrap()].0
    }

    /// The keys that belong to another endpoint when `left` has gone, as a share of all.
    fn moved(kind: HashTable, all: &[(String, u32)], left: usize) -> f64 {
        const KEYS: u32 = 100_000;
        let mut others = all.to_vec();
        others.remove(left);
        let (before, after) = (Table::new(kind, all), Table::new(kind, &others));
        let differs = |key: &u32| {
            let key = xxh64(&key.to_le_bytes(), 7);
            first(&before, all, key) != first(&after, &others, key)
        };
        f64::from((0..KEYS).filter(differs).count() as u32) / f64::from(KEYS)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn one_of_n_that_leaves_moves_little_more_than_its_share(
            base in any::<u32>(),
            count in 2..=40_u32,
            left in any::<prop::sample::Index>(),
        ) {
            let all = names(base, count);
            let share = moved(RING, &all, left.index(all.len()));
            prop_assert!(share <= 1.2 / f64::from(count), "{share} of {count}");
        }

        #[test]
        fn order_says_nothing_and_every_endpoint_is_found(
            kind in prop_oneof![Just(RING), Just(HashTable::Maglev(251))],
            weights in prop::collection::vec(0..4_u32, 1..12),
            key in any::<u64>(),
        ) {
            let mut all = names(1, weights.len() as u32);
            all.iter_mut().zip(&weights).for_each(|(one, weight)| one.1 = *weight);
            let table = Table::new(kind, &all);
            let found: Vec<&str> = table.order(key).map(|at| &*all[at].0).collect();
            let weighty = all.iter().filter(|(_, weight)| *weight > 0).count();
            prop_assert_eq!(found.len(), weighty);
            let mut turned = all.clone();
            turned.reverse();
            let other = Table::new(kind, &turned);
            let same: Vec<&str> = other.order(key).map(|at| &*turned[at].0).collect();
            prop_assert_eq!(found, same);
        }
    }

    /// Some keys of others move too; more endpoints for the same table, more of them.
    #[test]
    fn a_maglev_table_moves_a_few_keys_more() {
        for (count, bound) in [(2, 1.2), (5, 1.2), (10, 1.3), (40, 1.6)] {
            let share = moved(MAGLEV, &names(0x0a00_0000, count), 1);
            assert!(share <= bound / f64::from(count), "{share} of {count}");
        }
    }

    #[test]
    fn shares_follow_weights() {
        for (kind, slack) in [(RING, 0.15), (MAGLEV, 0.01)] {
            let mut all = names(0x0a00_0000, 3);
            all[0].1 = 2;
            let table = Table::new(kind, &all);
            let mut counts = [0_u32; 3];
            for key in 0..40_000_u32 {
                counts[table.order(xxh64(&key.to_le_bytes(), 3)).next().unwrap()] += 1;
            }
            for (count, expected) in counts.iter().zip([20_000.0, 10_000.0, 10_000.0]) {
                let off = (f64::from(*count) / expected - 1.0).abs();
                // The draw itself is off by a percent or two.
                assert!(off <= slack + 0.03, "{kind:?}: {counts:?}");
            }
        }
    }

    #[test]
    fn no_endpoints_are_no_trouble() {
        for kind in [RING, MAGLEV] {
            assert_eq!(Table::new(kind, &[]).order(7).count(), 0);
            assert_eq!(Table::new(kind, &[("a".into(), 0)]).order(7).count(), 0);
        }
    }
}

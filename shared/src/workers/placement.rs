//! Which worker gets a new task: a pure choice.

use super::WorkerId;

/// One step of busy share. Smaller differences are noise: then the number of tasks decides.
const STEP_PERMILLE: u32 = 50;
/// From here on a worker is crowded: 0.7 of its time, where others join by default.
const CROWDED_STEPS: u32 = 14;

/// For [`Guest::most`]: it may fill them all.
pub(super) const NO_LIMIT: usize = 0;

/// What is known about a worker when a task is placed.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Load {
    /// Share of the last interval spent running tasks, in thousandths.
    pub(super) busy_permille: u32,
    /// Tasks given to it since that was measured: each is taken to cost one step.
    pub(super) placed: u32,
    /// Tasks that have not ended.
    pub(super) live: usize,
    /// Tenants that are at home there.
    pub(super) settled: usize,
}

/// What is known about the tenant of a task.
#[derive(Clone, Copy, Debug)]
pub(super) struct Guest {
    /// Where it is at home, and its share of that worker's last interval, in thousandths.
    pub(super) home: Option<(WorkerId, u32)>,
    /// Workers that it may fill where others are at home.
    pub(super) most: usize,
}

/// Where a tenant's next task goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Choice {
    /// To its home, old or new.
    Home(WorkerId),
    /// To another worker, while too much comes at once or it fills its home.
    Beside(WorkerId),
    /// To a worker that it fills, because the better one is left to others.
    KeptBack(WorkerId),
}

impl Load {
    fn steps(self) -> u32 {
        self.busy_permille / STEP_PERMILLE + self.placed
    }

    fn rank(self) -> (u32, usize) {
        (self.steps(), self.live)
    }

    /// Who is there has to wait, as measured.
    fn is_crowded(self) -> bool {
        self.busy_permille >= CROWDED_STEPS * STEP_PERMILLE
    }

    /// It will be if more comes.
    fn is_full(self) -> bool {
        self.steps() >= CROWDED_STEPS
    }
}

/// Where the next task of a tenant goes: home. A home that others crowd is given up for a worker
/// with room, with few tenants and little to do. A tenant that fills its home gets further workers:
/// those where nobody else is at home, and those next to its own, all but the last.
pub(super) fn place(
    mut workers: impl Iterator<Item = (WorkerId, Load)> + Clone,
    guest: Guest,
) -> Option<Choice> {
    let count = workers.clone().count();
    let home = guest.home.and_then(|(home, share)| {
        let (_, load) = workers.clone().find(|(id, _)| *id == home)?;
        Some((home, load, share))
    });
    let roomy = workers.clone().filter(|(_, load)| !load.is_crowded());
    let roomy = roomy.min_by_key(|(id, load)| (load.settled, load.rank(), *id));
    let Some((home, load, share)) = home else {
        let any = roomy.map(|(id, _)| id).or_else(|| least(workers))?;
        return Some(Choice::Home(any));
    };
    let is_own_crowd = share * 2 >= load.busy_permille;
    if load.is_crowded()
        && !is_own_crowd
        && let Some((better, _)) = roomy
    {
        return Some(Choice::Home(better));
    }
    if !load.is_full() {
        return Some(Choice::Home(home));
    }
    let reach = guest.most.min(count.saturating_sub(1)).max(1);
    let is_open = |(id, load): &(WorkerId, Load)| {
        let distance = (id.0 + count - home.0) % count;
        load.settled == 0 || distance < reach || guest.most == NO_LIMIT
    };
    let open = workers.clone().filter(is_open);
    let (worker, load) = open.min_by_key(|(id, load)| (load.rank(), *id))?;
    let has_room = |(_, load): (WorkerId, Load)| !load.is_full();
    Some(match worker {
        _ if load.is_full() && workers.any(has_room) => Choice::KeptBack(worker),
        _ if worker == home => Choice::Home(home),
        _ => Choice::Beside(worker),
    })
}

/// The worker with the least to do; on a tie the one with fewer tasks, then the lowest number.
pub(super) fn least(loads: impl Iterator<Item = (WorkerId, Load)>) -> Option<WorkerId> {
    loads.min_by_key(|(id, load)| (load.rank(), *id)).map(|(id, _)| id)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choose(loads: &[Load]) -> usize {
        least(loads.iter().enumerate().map(|(index, load)| (WorkerId(index), *load))).unwrap().0
    }

    #[test]
    fn a_busy_worker_with_one_task_loses_to_an_idle_one_with_many() {
        let busy = Load { busy_permille: 900, live: 1, ..Load::default() };
        let idle = Load { busy_permille: 20, live: 50, ..Load::default() };
        assert_eq!(choose(&[busy, idle]), 1);
    }

    #[test]
    fn among_equally_busy_workers_the_one_with_fewer_tasks_wins() {
        let more = Load { busy_permille: 10, live: 5, ..Load::default() };
        let fewer = Load { busy_permille: 40, live: 4, ..Load::default() };
        assert_eq!(choose(&[more, fewer]), 1);
    }

    const QUIET: Load = Load { busy_permille: 100, placed: 0, live: 9, settled: 1 };
    const CROWDED: Load = Load { busy_permille: 900, placed: 0, live: 9, settled: 1 };
    const FREE: Load = Load { busy_permille: 100, placed: 0, live: 9, settled: 0 };

    /// A tenant without home.
    const NEW: Guest = Guest { home: None, most: 1 };

    /// At home on `worker`, of which it takes `share`.
    fn at(worker: usize, share: u32) -> Guest {
        Guest { home: Some((WorkerId(worker), share)), ..NEW }
    }

    fn placed(loads: &[Load], guest: Guest) -> Choice {
        let loads = loads.iter().enumerate().map(|(index, load)| (WorkerId(index), *load));
        place(loads, guest).unwrap()
    }

    fn home(worker: usize) -> Choice {
        Choice::Home(WorkerId(worker))
    }

    #[test]
    fn a_new_tenant_goes_where_the_fewest_are_at_home() {
        assert_eq!(placed(&[QUIET, FREE], NEW), home(1));
        assert_eq!(placed(&[QUIET, Load { settled: 0, ..CROWDED }], NEW), home(0));
        assert_eq!(placed(&[CROWDED, Load { busy_permille: 800, ..CROWDED }], NEW), home(1));
    }

    #[test]
    fn a_tenant_keeps_to_its_home_until_others_crowd_it() {
        assert_eq!(placed(&[Load::default(), QUIET], at(1, 100)), home(1));
        assert_eq!(placed(&[QUIET, CROWDED], at(1, 100)), home(0));
        assert_eq!(placed(&[CROWDED, CROWDED], at(1, 100)), home(1));
    }

    #[test]
    fn who_fills_its_home_leaves_the_last_worker_to_others() {
        let kept_back = Choice::KeptBack(WorkerId(0));
        assert_eq!(placed(&[CROWDED, QUIET], at(0, 850)), kept_back);
        assert_eq!(placed(&[CROWDED, FREE], at(0, 850)), Choice::Beside(WorkerId(1)));
        let two = Guest { most: 2, ..at(0, 850) };
        assert_eq!(placed(&[CROWDED, QUIET], two), kept_back, "one is always left");
        assert_eq!(placed(&[CROWDED, QUIET, QUIET], two), Choice::Beside(WorkerId(1)));
        let any = Guest { most: NO_LIMIT, ..at(0, 850) };
        assert_eq!(placed(&[CROWDED, QUIET], any), Choice::Beside(WorkerId(1)));
    }

    #[test]
    fn a_burst_goes_beside_and_moves_nobody() {
        let burst = Load { placed: 20, ..QUIET };
        assert_eq!(placed(&[burst, FREE], at(0, 50)), Choice::Beside(WorkerId(1)));
        assert_eq!(placed(&[burst, QUIET], at(0, 50)), Choice::KeptBack(WorkerId(0)));
        assert_eq!(placed(&[burst, Load { placed: 30, ..QUIET }], at(0, 50)), home(0));
    }

    #[test]
    fn a_burst_within_one_interval_is_spread() {
        let mut loads = [Load { busy_permille: 300, ..Load::default() }, Load::default()];
        let mut got = [0, 0];
        for _ in 0..46 {
            let index = choose(&loads);
            loads[index].placed += 1;
            got[index] += 1;
        }
        assert_eq!(got, [20, 26]);
    }
}

//! Which worker gets a new connection: a pure choice.

use super::WorkerId;

/// One step of busy share. Smaller differences are noise: then the number of tasks decides.
const STEP_PERMILLE: u32 = 50;

/// What is known about a worker when a connection is placed.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Load {
    /// Share of the last interval spent running tasks, in thousandths.
    pub(super) busy_permille: u32,
    /// Tasks given to it since that was measured: each is taken to cost one step.
    pub(super) placed: u32,
    /// Tasks that have not ended.
    pub(super) live: usize,
}

impl Load {
    fn rank(self) -> (u32, usize) {
        (self.busy_permille / STEP_PERMILLE + self.placed, self.live)
    }
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

//! Turns of tenants on one worker: who has run long enough waits until everything that was ready
//! then has run.
//!
//! ```text
//! worker's queue   a1 a2 a3 b R      a1 was long, the turn of a is over: R, which ends the round, is queued
//!                     a2 a3 b R      a2 and a3 come up and are set aside, b runs
//!                             R      the round is over, a has its turn again
//!                         a2 a3      as many as ran in its last turn go back into the queue
//! ```
//! Invariants: a worker with something to do never rests; among the tasks of a tenant, who was set
//! aside first runs first; where tasks are set aside, one is queued that will let the next one go, or R is.
//! Not here: which worker a tenant's tasks run on (`placement`).

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::future::{Future, poll_fn};
use std::num::NonZeroU64;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use pin_project_lite::pin_project;
use tokio::time::Instant;

use super::WorkerId;
use super::tenant::{Tenant, Usage};
use super::thread::permille;

/// All turns of a worker.
#[derive(Default)]
struct Turns {
    tenants: RefCell<HashMap<usize, Rc<Turn>>>,
    /// Whose task runs now.
    current: RefCell<Option<Rc<Turn>>>,
    /// Tenants whose turn is over in this round.
    over: RefCell<Vec<Rc<Turn>>>,
    round: Cell<u64>,
    /// Ends the round; none on threads without `end_rounds`.
    ender: RefCell<Option<Waker>>,
}

thread_local! {
    static TURNS: Turns = Turns::default();
}

/// One tenant on one worker.
pub(super) struct Turn {
    tenant: Arc<Tenant>,
    /// The round that `spent` and `ran` are of.
    round: Cell<u64>,
    spent: Cell<Duration>,
    /// Tasks that ran in this turn, or, while it is over, in the last one.
    ran: Cell<usize>,
    is_over: Cell<bool>,
    set_aside: RefCell<VecDeque<(Ticket, Waker)>>,
    last_ticket: Cell<NonZeroU64>,
    /// Since it was told.
    untold: Cell<Duration>,
    untold_overs: Cell<u64>,
}

/// A task's place among those of its tenant that were set aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Ticket(NonZeroU64);

/// The turn of `tenant` on this worker.
pub(super) fn of(tenant: &Arc<Tenant>) -> Rc<Turn> {
    TURNS.with(|turns| {
        let mut tenants = turns.tenants.borrow_mut();
        let turn = tenants.entry(Arc::as_ptr(tenant).addr());
        Rc::clone(turn.or_insert_with(|| Rc::new(Turn::new(Arc::clone(tenant)))))
    })
}

/// Makes `future`, which is to become a task, work of the tenant whose task runs now.
pub fn inherit<F: Future>(future: F) -> InTurn<F> {
    let turn = TURNS.with(|turns| turns.current.borrow().clone());
    InTurn { turn, ticket: None, future }
}

/// Makes `future`, which is to become a task, work of `turn`'s tenant.
pub(super) fn run<F: Future>(turn: Rc<Turn>, future: F) -> InTurn<F> {
    InTurn { turn: Some(turn), ticket: None, future }
}

pin_project! {
    /// A task of a tenant, if it has one.
    pub struct InTurn<F> {
        turn: Option<Rc<Turn>>,
        ticket: Option<Ticket>,
        #[pin]
        future: F,
    }

    impl<F> PinnedDrop for InTurn<F> {
        fn drop(this: Pin<&mut Self>) {
            let this = this.project();
            if let (Some(turn), Some(ticket)) = (this.turn, this.ticket.take()) {
                turn.give_back(ticket);
            }
        }
    }
}

impl<F: Future> Future for InTurn<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let Some(turn) = this.turn else { return this.future.poll(cx) };
        if turn.sets_aside(this.ticket, cx) {
            return Poll::Pending;
        }
        TURNS.with(|turns| {
            let _running = Running::begin(turns, turn);
            this.future.poll(cx)
        })
    }
}

/// A task that is being polled; charges its tenant also when it panics.
struct Running<'a> {
    turns: &'a Turns,
    turn: &'a Rc<Turn>,
    outer: Option<Rc<Turn>>,
    begun: Instant,
}

impl<'a> Running<'a> {
    fn begin(turns: &'a Turns, turn: &'a Rc<Turn>) -> Self {
        let outer = turns.current.replace(Some(Rc::clone(turn)));
        Self { turns, turn, outer, begun: Instant::now() }
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.turns.current.replace(self.outer.take());
        self.turn.charge(self.turns, self.begun.elapsed());
    }
}

impl Turn {
    fn new(tenant: Arc<Tenant>) -> Self {
        Self {
            tenant,
            round: Cell::default(),
            spent: Cell::default(),
            ran: Cell::default(),
            is_over: Cell::default(),
            set_aside: RefCell::default(),
            last_ticket: Cell::new(NonZeroU64::MIN),
            untold: Cell::default(),
            untold_overs: Cell::default(),
        }
    }

    /// Whether the task with `ticket` has to wait. If so it is woken when it need no longer.
    fn sets_aside(&self, ticket: &mut Option<Ticket>, cx: &Context<'_>) -> bool {
        let mut waiting = self.set_aside.borrow_mut();
        let place = ticket.map(|ticket| waiting.binary_search_by_key(&ticket, |(it, _)| *it));
        if let Some(Ok(_)) = place {
            return true;
        }
        // Whoever comes new waits behind those who wait, who has waited does not.
        if !self.is_over.get() && (ticket.is_some() || waiting.is_empty()) {
            *ticket = None;
            return false;
        }
        let ticket = *ticket.get_or_insert_with(|| {
            self.last_ticket.set(self.last_ticket.get().saturating_add(1));
            Ticket(self.last_ticket.get())
        });
        let place = place.and_then(Result::err).unwrap_or(waiting.len());
        waiting.insert(place, (ticket, cx.waker().clone()));
        true
    }

    /// A task with a ticket ends without having run.
    fn give_back(&self, ticket: Ticket) {
        let mut waiting = self.set_aside.borrow_mut();
        let removed = match waiting.binary_search_by_key(&ticket, |(it, _)| *it) {
            Ok(place) => waiting.remove(place),
            Err(_) => None,
        };
        drop(waiting);
        // It had been let go, and would have let go the next one.
        if removed.is_none() && !self.is_over.get() {
            self.let_go(1);
        }
    }

    fn let_go(&self, tasks: usize) {
        for _ in 0..tasks {
            let first = self.set_aside.borrow_mut().pop_front();
            let Some((_, waker)) = first else { return };
            waker.wake();
        }
    }

    fn charge(self: &Rc<Self>, turns: &Turns, time: Duration) {
        self.untold.set(self.untold.get() + time);
        if self.round.replace(turns.round.get()) != turns.round.get() {
            self.spent.set(Duration::ZERO);
            self.ran.set(0);
        }
        self.spent.set(self.spent.get() + time);
        self.ran.set(self.ran.get() + 1);
        if self.is_over.get() {
            return;
        }
        let limit = self.tenant.limits().turn;
        if limit.is_zero() || self.spent.get() < limit || turns.tenants.borrow().len() < 2 {
            return self.let_go(1);
        }
        if let Some(ender) = &*turns.ender.borrow() {
            self.is_over.set(true);
            self.untold_overs.set(self.untold_overs.get() + 1);
            turns.over.borrow_mut().push(Rc::clone(self));
            ender.wake_by_ref();
        }
    }

    fn begin(&self) {
        self.is_over.set(false);
        self.let_go(self.ran.get().max(1));
    }

    fn tell(&self, worker: WorkerId, interval: Duration) {
        let (ran, overs) = (self.untold.take(), self.untold_overs.take());
        let share = ran.as_secs_f64() / interval.as_secs_f64();
        self.tenant.set_share(worker, permille(share));
        if !ran.is_zero() {
            self.tenant.tell(Usage::Ran(ran));
        }
        if overs > 0 {
            self.tenant.tell(Usage::TurnsOver(overs));
        }
    }
}

/// Ends rounds. A task of every worker.
pub(super) async fn end_rounds() {
    poll_fn(|cx| {
        TURNS.with(|turns| {
            turns.ender.replace(Some(cx.waker().clone()));
            turns.round.set(turns.round.get() + 1);
            // Waking only queues: no turn can be over again before this is done.
            turns.over.borrow_mut().drain(..).for_each(|turn| turn.begin());
            Poll::<()>::Pending
        })
    })
    .await;
}

/// The worker has nothing to do: nobody waits, so all turns begin anew. Called when it goes to sleep.
pub(super) fn rest() {
    TURNS.with(|turns| turns.round.set(turns.round.get() + 1));
}

/// Tells every tenant what it took of this worker during the last `interval`, and forgets those
/// without tasks.
pub(super) fn tell(worker: WorkerId, interval: Duration) {
    TURNS.with(|turns| {
        turns.tenants.borrow_mut().retain(|_, turn| {
            turn.tell(worker, interval);
            Rc::strong_count(turn) > 1
        });
    });
}

//! The event loop of the load generator: when each connection sends, and what its socket says.
//!
//! Every connection has its own times at which requests are due, evenly spread over all of them
//! unless it is told otherwise. A connection that is late sends as soon as it can, and its requests count from when they were due.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use rustls::ClientConfig;

use super::connection::{Connection, Step};
use super::tally::Tally;
use super::{Args, COUNTED, COUNTING, Report};

const PATIENCE: Duration = Duration::from_secs(10);
/// How often it is looked for connections that have waited too long.
const LOOK: Duration = Duration::from_millis(500);
/// A refused connection must not become a busy loop.
const BACK_OFF: Duration = Duration::from_millis(5);

const TIMER: u64 = u64::MAX;
const INPUT: u64 = u64::MAX - 1;

/// One connection and its next request.
#[derive(Default)]
struct Slot {
    connection: Option<Connection>,
    /// When the request that is under way was due and sent.
    under_way: Option<(Instant, Instant)>,
}

/// One run of the generator.
pub(super) struct Engine {
    request: Vec<u8>,
    target: SocketAddr,
    tls: Option<Arc<ClientConfig>>,
    fresh: bool,
    interval: Option<Duration>,
    count_from: Instant,
    end: Option<Instant>,
    /// Requests that may still be started.
    left: u64,
    slots: Vec<Slot>,
    /// When which connection has its next request.
    due: BinaryHeap<Reverse<(Instant, usize)>>,
    tally: Tally,
    events: Events,
}

impl Engine {
    pub(super) fn new(args: &Args, target: SocketAddr) -> anyhow::Result<Self> {
        let start = Instant::now();
        let count_from = start + Duration::from_secs_f64(args.warm_up);
        let until_input_ends = args.seconds == 0.0 && args.requests == 0;
        let interval =
            (args.rate > 0).then(|| Duration::from_secs(1) * args.connections / args.rate);
        // Connections start evenly within one interval, or together.
        let spread = interval.filter(|_| !args.together).unwrap_or_default();
        let first = |number| start + spread * number / args.connections;
        Ok(Self {
            request: format!("GET {} HTTP/1.1\r\nhost: {}\r\n\r\n", args.path, args.target)
                .into_bytes(),
            target,
            tls: args.tls.client()?,
            fresh: args.fresh,
            interval,
            count_from,
            end: (args.seconds > 0.0).then(|| count_from + Duration::from_secs_f64(args.seconds)),
            left: if args.requests == 0 { u64::MAX } else { args.requests },
            slots: (0..args.connections).map(|_| Slot::default()).collect(),
            due: (0..args.connections)
                .map(|number| Reverse((first(number), number as usize)))
                .collect(),
            tally: Tally::new()?,
            events: Events::new(until_input_ends)?,
        })
    }

    /// Runs to the end.
    #[expect(clippy::print_stdout, reason = "standard output is how a role answers")]
    pub(super) fn run(mut self) -> anyhow::Result<Report> {
        let mut buffer = vec![0; 65536];
        let mut ready = Vec::with_capacity(256);
        let mut look = Instant::now() + LOOK;
        let (mut counting, mut ended) = (false, None);
        loop {
            let now = Instant::now();
            if !counting && now >= self.count_from {
                counting = true;
                println!("{COUNTING}");
            }
            if ended.is_none() && self.end.is_some_and(|end| now >= end) {
                ended = Some(now);
                println!("{COUNTED}");
                self.give_up_unsent(now);
            }
            if now >= look {
                self.look_for_the_lost(now);
                look = now + LOOK;
            }
            self.start_due(now, &mut buffer);
            let idle = self.slots.iter().all(|slot| slot.under_way.is_none());
            let last = self.end.is_none() || ended.is_some() || self.left == 0;
            if idle && last && self.due.is_empty() {
                break;
            }
            let mut wake = look.min(self.due.peek().map_or(look, |Reverse((due, _))| *due));
            for mark in [Some(self.count_from), self.end].into_iter().flatten() {
                if mark > now {
                    wake = wake.min(mark);
                }
            }
            if self.events.wait(wake, &mut ready)? {
                break;
            }
            for number in ready.drain(..) {
                self.advance(number, &mut buffer);
            }
        }
        let to = ended.unwrap_or_else(Instant::now);
        Ok(self.tally.report(self.count_from, to))
    }

    /// Starts every request that is due by now.
    fn start_due(&mut self, now: Instant, buffer: &mut [u8]) {
        while let Some(Reverse((due, number))) = self.due.peek().copied() {
            if due > now {
                return;
            }
            self.due.pop();
            if self.left > 0 {
                self.left -= 1;
                // In a closed loop a request is due when it is sent.
                let due = if self.interval.is_some() { due } else { now };
                self.start(number, due, now, buffer);
            }
        }
    }

    fn start(&mut self, number: usize, due: Instant, now: Instant, buffer: &mut [u8]) {
        let slot = &mut self.slots[number];
        slot.under_way = Some((due, now));
        match &mut slot.connection {
            Some(connection) => {
                connection.begin();
                self.advance(number, buffer);
            }
            None => match Connection::open(self.target, self.tls.as_ref())
                .and_then(|connection| self.events.watch(&connection, number).map(|()| connection))
            {
                // The socket says when it is connected.
                Ok(connection) => slot.connection = Some(connection),
                Err(kind) => self.fail(number, kind),
            },
        }
    }

    /// The socket of connection `number` has something to say, or a request waits to be sent.
    fn advance(&mut self, number: usize, buffer: &mut [u8]) {
        let slot = &mut self.slots[number];
        let Some(connection) = &mut slot.connection else { return };
        let step = connection.advance(&self.request, buffer).and_then(|step| {
            if step == Step::Answered && self.fresh {
                connection.end()?;
            }
            Ok(step)
        });
        match step {
            Ok(Step::Waiting) => {}
            Ok(Step::Answered) => {
                let Some((due, _)) = slot.under_way else { return };
                let now = Instant::now();
                if now >= self.count_from && self.end.is_none_or(|end| now < end) {
                    self.tally.came();
                }
                if due >= self.count_from {
                    let took = now.saturating_duration_since(due);
                    self.tally.answered(took, connection.answer().server());
                }
                if !self.fresh {
                    if connection.answer().closes() {
                        slot.connection = None;
                    }
                    self.next(number, due, now, buffer);
                }
            }
            Ok(Step::Closed) => {
                slot.connection = None;
                if let Some((due, _)) = slot.under_way {
                    self.next(number, due, Instant::now(), buffer);
                }
            }
            Err(kind) => self.fail(number, kind),
        }
    }

    /// Connection `number` is free: what is next for it?
    fn next(&mut self, number: usize, due: Instant, now: Instant, buffer: &mut [u8]) {
        self.slots[number].under_way = None;
        match self.interval {
            Some(interval) => self.again(number, due + interval, now),
            None if self.left > 0 && self.end.is_none_or(|end| now < end) => {
                self.left -= 1;
                self.start(number, now, now, buffer);
            }
            None => {}
        }
    }

    fn fail(&mut self, number: usize, kind: String) {
        let slot = &mut self.slots[number];
        slot.connection = None;
        self.tally.failed(kind);
        let now = Instant::now();
        if let Some((due, _)) = slot.under_way.take() {
            let next = self.interval.map_or(now + BACK_OFF, |interval| due + interval);
            self.again(number, next, now);
        }
    }

    /// Plans the next request of connection `number`, unless it would come after the end.
    fn again(&mut self, number: usize, due: Instant, now: Instant) {
        match self.end {
            Some(end) if due >= end => {}
            Some(end) if now >= end => self.unsent(due, now),
            _ => self.due.push(Reverse((due, number))),
        }
    }

    /// At the end: what was due and could not be sent had to wait at least until now.
    fn give_up_unsent(&mut self, now: Instant) {
        for Reverse((due, _)) in std::mem::take(&mut self.due) {
            self.unsent(due, now);
        }
    }

    fn unsent(&mut self, mut due: Instant, now: Instant) {
        let (Some(interval), Some(end)) = (self.interval, self.end) else { return };
        while due < end {
            self.tally.unsent(now.saturating_duration_since(due));
            due += interval;
        }
    }

    fn look_for_the_lost(&mut self, now: Instant) {
        for number in 0..self.slots.len() {
            let sent = self.slots[number].under_way.map(|(_, sent)| sent);
            if sent.is_some_and(|sent| now.saturating_duration_since(sent) > PATIENCE) {
                self.fail(number, "no answer within 10 s".to_owned());
            }
        }
    }
}

/// What the engine waits on: sockets, one precise timer, and perhaps the input.
struct Events {
    epoll: OwnedFd,
    timer: OwnedFd,
    armed: Option<Instant>,
    heard: Vec<epoll::Event>,
}

impl Events {
    fn new(watch_input: bool) -> anyhow::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let timer = timerfd_create(
            TimerfdClockId::Monotonic,
            TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK,
        )?;
        // Edge triggered: an expired timer is armed again, never read.
        let edge = EventFlags::IN | EventFlags::ET;
        epoll::add(&epoll, &timer, EventData::new_u64(TIMER), edge)?;
        if watch_input {
            epoll::add(&epoll, std::io::stdin(), EventData::new_u64(INPUT), EventFlags::HUP)?;
        }
        Ok(Self { epoll, timer, armed: None, heard: Vec::with_capacity(256) })
    }

    fn watch(&self, connection: &Connection, number: usize) -> Result<(), String> {
        let both = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        epoll::add(&self.epoll, connection.as_fd(), EventData::new_u64(number as u64), both)
            .map_err(|error| format!("epoll: {error}"))
    }

    /// Waits until `wake` or until a socket has something to say; true when the input ended.
    fn wait(&mut self, wake: Instant, ready: &mut Vec<usize>) -> anyhow::Result<bool> {
        if self.armed != Some(wake) {
            let left = wake.saturating_duration_since(Instant::now());
            // Zero would disarm it.
            let left = left.max(Duration::from_nanos(1));
            let left =
                Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
            let once = Itimerspec { it_interval: Timespec::default(), it_value: left };
            timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &once)?;
            self.armed = Some(wake);
        }
        self.heard.clear();
        match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut self.heard), None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let mut input_ended = false;
        for event in &self.heard {
            match event.data.u64() {
                TIMER => self.armed = None,
                INPUT => input_ended = true,
                number => ready.push(number as usize),
            }
        }
        Ok(input_ended)
    }
}

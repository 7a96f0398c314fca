//! Where lines of log go: one thread that owns the output.
//!
//! Invariants: lines keep the order in which they were handed over; a line is written whole; a full
//! queue makes the producer wait, so no line is lost; an output that fails (closed pipe) loses its
//! lines, never the process.

use std::io::{self, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

/// Lines that may wait: as many as Istio's ztunnel.
const QUEUE_LINES: usize = 10_000;
/// Lines that go out in one write.
const BATCH_LINES: usize = 64;
/// The output is looked after at most this often, so that a busy producer need not wake the writer per line.
const GATHER: Duration = Duration::from_millis(2);

/// Hands lines to the writer thread. Cheap to clone; the thread ends with the last clone.
#[derive(Clone, Debug)]
pub struct Sink {
    queue: SyncSender<Message>,
}

enum Message {
    Line(String),
    Flush(SyncSender<()>),
}

impl Sink {
    /// Starts the writer thread over `output`.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn start(output: impl Write + Send + 'static) -> io::Result<Self> {
        let (queue, lines) = sync_channel(QUEUE_LINES);
        std::thread::Builder::new()
            .name("culvert-log".into())
            .spawn(move || write(output, &lines))?;
        Ok(Self { queue })
    }

    /// Hands over one line, with its line end. Waits while the queue is full.
    pub fn line(&self, line: String) {
        self.queue.send(Message::Line(line)).ok();
    }

    /// Waits until everything handed over before is written, at most `patience`.
    pub fn flush(&self, patience: Duration) {
        let (done, written) = sync_channel(1);
        if self.queue.try_send(Message::Flush(done)).is_ok() {
            written.recv_timeout(patience).ok();
        }
    }
}

fn write(mut output: impl Write, lines: &Receiver<Message>) {
    let mut batch = String::new();
    while let Ok(first) = lines.recv() {
        let mut asked = Vec::new();
        let mut next = Some(first);
        let mut taken = 0;
        while let Some(message) = next {
            match message {
                Message::Line(line) => batch.push_str(&line),
                Message::Flush(done) => asked.push(done),
            }
            taken += 1;
            next = if taken < BATCH_LINES { lines.try_recv().ok() } else { None };
        }
        output.write_all(batch.as_bytes()).and_then(|()| output.flush()).ok();
        batch.clear();
        asked.iter().for_each(|done: &SyncSender<()>| done.send(()).unwrap_or_default());
        if taken < BATCH_LINES {
            std::thread::sleep(GATHER);
        }
    }
}

/// Lets tests read what was written.
#[cfg(test)]
pub(super) fn to_memory() -> (Sink, impl FnOnce() -> String) {
    #[derive(Clone, Default)]
    struct Memory(std::sync::Arc<parking_lot::Mutex<Vec<u8>>>);
    impl Write for Memory {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let memory = Memory::default();
    let sink = Sink::start(memory.clone()).expect("a thread can be started");
    let flushing = sink.clone();
    let read = move || {
        flushing.flush(Duration::from_secs(10));
        String::from_utf8(memory.0.lock().clone()).expect("lines are text")
    };
    (sink, read)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_out_whole_and_in_order() {
        let (sink, written) = to_memory();
        let expected: String = (0..1000).map(|n| format!("{n}\n")).collect();
        (0..1000).for_each(|n| sink.line(format!("{n}\n")));
        assert_eq!(written(), expected);
    }

    #[test]
    fn a_full_queue_makes_the_producer_wait_and_loses_nothing() {
        struct Stuck(Receiver<()>, SyncSender<usize>);
        impl Write for Stuck {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0.recv_timeout(Duration::from_secs(10)).ok();
                self.1.send(bytes.iter().filter(|byte| **byte == b'\n').count()).ok();
                Ok(bytes.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let (release, stuck) = sync_channel(1);
        let (count, counted) = sync_channel(QUEUE_LINES);
        let sink = Sink::start(Stuck(stuck, count)).unwrap();
        let total = QUEUE_LINES + 10 * BATCH_LINES;
        let producer = std::thread::spawn(move || (0..total).for_each(|_| sink.line("x\n".into())));
        std::thread::sleep(Duration::from_millis(100));
        assert!(!producer.is_finished(), "the producer must wait while the output is stuck");
        drop(release);
        producer.join().unwrap();
        assert_eq!(counted.iter().sum::<usize>(), total);
    }

    #[test]
    fn a_closed_output_does_not_stop_producers() {
        struct Closed;
        impl Write for Closed {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let sink = Sink::start(Closed).unwrap();
        (0..3 * QUEUE_LINES).for_each(|_| sink.line("x\n".into()));
    }
}

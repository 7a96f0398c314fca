use std::task::Waker;

use proptest::prelude::*;
use tokio::sync::mpsc;

use super::*;

type Piece = Result<Frame<Bytes>, Error>;

/// A body whose frames come when they are sent.
struct Slow(mpsc::UnboundedReceiver<Piece>);

impl http_body::Body for Slow {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        self.0.poll_recv(cx)
    }
}

fn slow() -> (mpsc::UnboundedSender<Piece>, Rc<Kept<Slow>>) {
    let (sender, receiver) = mpsc::unbounded_channel();
    (sender, Rc::new(Kept::new(Slow(receiver), SizeHint::default())))
}

fn data(bytes: &[u8]) -> Piece {
    Ok(Frame::data(Bytes::copy_from_slice(bytes)))
}

/// What there is to read now, and whether the body has ended.
fn read<B>(replay: &Replay<B>) -> (Vec<u8>, bool)
where
    B: http_body::Body<Data = Bytes, Error: Into<Error>> + Unpin,
{
    let cx = &mut Context::from_waker(Waker::noop());
    let mut seen = Vec::new();
    loop {
        match replay.poll_frame(cx) {
            Poll::Ready(Some(frame)) => match frame.unwrap().into_data() {
                Ok(payload) => seen.extend_from_slice(&payload),
                Err(trailers) => assert_eq!(trailers.into_trailers().unwrap()["x-sum"], "7"),
            },
            Poll::Ready(None) => return (seen, true),
            Poll::Pending => return (seen, false),
        }
    }
}

#[test]
fn a_frame_is_not_held_back_and_the_next_attempt_begins_at_the_first() {
    let (sender, kept) = slow();
    let first = Kept::replay(&kept).unwrap();
    sender.send(data(b"one ")).unwrap();
    assert_eq!(read(&first), (b"one ".to_vec(), false));
    let second = Kept::replay(&kept).unwrap();
    assert_eq!(read(&second), (b"one ".to_vec(), false));
    sender.send(data(b"two")).unwrap();
    let trailers = HeaderMap::from_iter([(
        http::HeaderName::from_static("x-sum"),
        http::HeaderValue::from_static("7"),
    )]);
    sender.send(Ok(Frame::trailers(trailers))).unwrap();
    drop(sender);
    assert_eq!(read(&second), (b"two".to_vec(), true));
    let third = Kept::replay(&kept).unwrap();
    assert_eq!(read(&third), (b"one two".to_vec(), true));
    assert!(third.is_end_stream());
}

#[test]
fn an_attempt_that_was_given_up_takes_nothing_from_its_successor() {
    let (sender, kept) = slow();
    let first = Kept::replay(&kept).unwrap();
    assert_eq!(read(&first), (Vec::new(), false));
    let second = Kept::replay(&kept).unwrap();
    sender.send(data(b"payload")).unwrap();
    let cx = &mut Context::from_waker(Waker::noop());
    assert!(matches!(first.poll_frame(cx), Poll::Ready(Some(Err(_)))));
    assert_eq!(read(&second), (b"payload".to_vec(), false));
}

#[test]
fn beyond_the_bound_nothing_is_kept_and_all_is_sent() {
    let (sender, kept) = slow();
    let only = Kept::replay(&kept).unwrap();
    let half = vec![b'x'; MOST_BYTES / 2];
    for _ in 0..2 {
        sender.send(data(&half)).unwrap();
    }
    assert_eq!(read(&only).0.len(), MOST_BYTES);
    assert!(kept.state.borrow().keeping, "exactly the bound is within it");
    sender.send(data(b"y")).unwrap();
    drop(sender);
    assert_eq!(read(&only), (b"y".to_vec(), true));
    assert!(Kept::replay(&kept).is_none());
    assert!(kept.state.borrow().parts.is_empty());
}

#[test]
fn an_answer_lets_go_of_what_was_sent_and_of_nothing_else() {
    let (sender, kept) = slow();
    let first = Kept::replay(&kept).unwrap();
    let long = vec![b'x'; SHORT_BYTES];
    sender.send(data(&long)).unwrap();
    sender.send(data(b"tail")).unwrap();
    assert_eq!(read(&first).0.len(), SHORT_BYTES + 4);
    let second = Kept::replay(&kept).unwrap();
    let cx = &mut Context::from_waker(Waker::noop());
    assert!(matches!(second.poll_frame(cx), Poll::Ready(Some(Ok(_)))));
    kept.state.borrow_mut().stop_keeping();
    sender.send(data(b" more")).unwrap();
    drop(sender);
    assert_eq!(read(&second), (b"tail more".to_vec(), true));
}

/// Small chunks must not keep the buffers alive that they were read into.
#[test]
fn short_frames_are_kept_together() {
    let (sender, kept) = slow();
    let first = Kept::replay(&kept).unwrap();
    for _ in 0..MOST_BYTES {
        sender.send(data(b"x")).unwrap();
    }
    assert_eq!(read(&first).0.len(), MOST_BYTES);
    assert!(kept.state.borrow().parts.len() <= MOST_BYTES / SHORT_BYTES);
}

#[test]
fn what_is_declared_too_large_is_sent_once_unless_nothing_of_it_was_sent() {
    let large = SizeHint::with_exact(MOST_BYTES as u64 + 1);
    let kept = Rc::new(Kept::new(RequestBody::Empty, large));
    let body = RequestBody::Replay(Kept::replay(&kept).unwrap());
    let mut repeated = Repeated::new(Request::new(body), false);
    let sent = repeated.make().unwrap();
    assert!(!repeated.is_whole());
    repeated.take_back(sent);
    assert!(repeated.is_whole());
    assert!(repeated.make().is_some());
    assert!(repeated.make().is_none());
}

proptest! {
    /// Whatever the frames are and whenever an attempt is given up: each attempt sends the body.
    #[test]
    fn every_attempt_sends_the_same_bytes(
        lengths in prop::collection::vec(0_usize..9_000, 1..20),
        stops in prop::collection::vec(0_usize..20, 0..4),
    ) {
        let bytes: Vec<u8> = (0..lengths.iter().sum()).map(|at: usize| at as u8).collect();
        let mut at = 0;
        let frames: Vec<Piece> = lengths.iter().map(|length| {
            at += length;
            data(&bytes[at - length..at])
        }).collect();
        let (sender, kept) = slow();
        for frame in frames {
            sender.send(frame).unwrap();
        }
        drop(sender);
        let cx = &mut Context::from_waker(Waker::noop());
        for stop in stops {
            let Some(given_up) = Kept::replay(&kept) else { break };
            for _ in 0..stop {
                let _ = given_up.poll_frame(cx);
            }
        }
        match Kept::replay(&kept) {
            Some(last) => prop_assert_eq!(read(&last), (bytes, true)),
            None => prop_assert!(bytes.len() > MOST_BYTES),
        }
    }
}

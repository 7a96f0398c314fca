//! An HTTP/1.1 answer while it comes in, in whatever pieces.
//! Not here: bodies without a length; the servers of the harness and of the benchmark name it.

/// Longer heads are a mistake of the server.
const MAX_HEAD_BYTES: usize = 65536;

/// The answer to one request; used again for the next one, so that it allocates only once.
#[derive(Debug, Default)]
pub(super) struct Answer {
    head: Vec<u8>,
    /// Bytes of the body that are still to come, once the head is whole.
    left: Option<usize>,
    server: Vec<u8>,
    closes: bool,
}

impl Answer {
    /// Forgets the last answer.
    pub(super) fn clear(&mut self) {
        self.head.clear();
        self.left = None;
        self.server.clear();
        self.closes = false;
    }

    /// Takes the next bytes; true when the answer is whole.
    ///
    /// # Errors
    /// What is wrong with it, as a kind of error for the report.
    pub(super) fn take(&mut self, bytes: &[u8]) -> Result<bool, String> {
        let Some(left) = self.left else { return self.take_head(bytes) };
        let left = left.checked_sub(bytes.len()).ok_or("bytes after the answer")?;
        self.left = Some(left);
        Ok(left == 0)
    }

    /// What the server calls itself.
    pub(super) fn server(&self) -> &[u8] {
        &self.server
    }

    /// Whether the server closes the connection after this answer.
    pub(super) fn closes(&self) -> bool {
        self.closes
    }

    fn take_head(&mut self, bytes: &[u8]) -> Result<bool, String> {
        // The end of the head may be cut in two.
        let from = self.head.len().saturating_sub(3);
        self.head.extend_from_slice(bytes);
        let end = self.head[from..].windows(4).position(|window| window == b"\r\n\r\n");
        let Some(end) = end else {
            let whole = self.head.len() <= MAX_HEAD_BYTES;
            return if whole { Ok(false) } else { Err("a head without end".to_owned()) };
        };
        let end = from + end + 4;
        let length = read_head(&self.head[..end], &mut self.server, &mut self.closes)?;
        let body = self.head.len() - end;
        self.left = Some(length.checked_sub(body).ok_or("bytes after the answer")?);
        Ok(self.left == Some(0))
    }
}

/// Gives the length of the body.
fn read_head(head: &[u8], server: &mut Vec<u8>, closes: &mut bool) -> Result<usize, String> {
    if !head.starts_with(b"HTTP/1.1 200") {
        let status = head.split(|byte| *byte == b' ').nth(1).unwrap_or_default();
        return Err(format!("status {}", String::from_utf8_lossy(status)));
    }
    let mut length = None;
    for line in head.split(|byte| *byte == b'\n').skip(1) {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        let (key, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if key.eq_ignore_ascii_case(b"content-length") {
            length = std::str::from_utf8(value).ok().and_then(|value| value.parse().ok());
        } else if key.eq_ignore_ascii_case(b"server") {
            server.extend_from_slice(value);
        } else if key.eq_ignore_ascii_case(b"connection") {
            *closes = value.eq_ignore_ascii_case(b"close");
        }
    }
    length.ok_or_else(|| "no content-length".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: &[u8] = b"HTTP/1.1 200 OK\r\nServer: s\r\ncontent-LENGTH: 5\r\n\r\nhello";

    #[test]
    fn an_answer_is_whole_at_its_last_byte_however_it_is_cut() {
        for first in 0..WHOLE.len() {
            for second in first..WHOLE.len() {
                let mut answer = Answer::default();
                for piece in [&WHOLE[..first], &WHOLE[first..second]] {
                    assert_eq!(answer.take(piece), Ok(false), "{first} {second}");
                }
                assert_eq!(answer.take(&WHOLE[second..]), Ok(true), "{first} {second}");
                assert_eq!((answer.server(), answer.closes()), (&b"s"[..], false));
            }
        }
    }

    #[test]
    fn the_next_answer_starts_anew() {
        let mut answer = Answer::default();
        assert_eq!(
            answer.take(
                b"HTTP/1.1 200 OK\r\nserver: a\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
            ),
            Ok(true)
        );
        assert!(answer.closes());
        answer.clear();
        assert_eq!(answer.take(WHOLE), Ok(true));
        assert_eq!((answer.server(), answer.closes()), (&b"s"[..], false));
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (wrong, why) in [
            (&b"HTTP/1.1 503 Service Unavailable\r\n\r\n"[..], "status 503"),
            (b"HTTP/1.1 200 OK\r\n\r\n", "no content-length"),
            (b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nab", "bytes after the answer"),
        ] {
            assert_eq!(Answer::default().take(wrong), Err(why.to_owned()));
        }
        let mut answer = Answer::default();
        assert_eq!(answer.take(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\na"), Ok(false));
        assert_eq!(answer.take(b"bc"), Err("bytes after the answer".to_owned()));
        let endless = vec![b'x'; MAX_HEAD_BYTES + 1];
        assert_eq!(Answer::default().take(&endless), Err("a head without end".to_owned()));
    }
}

//! Drives rustls through a handshake and takes the keys over.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};
use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::kernel::KernelConnection;
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{ConnectionState, EncodeError, UnbufferedStatus};
use rustls::{ClientConfig, CommonState, ExtractedSecrets, ServerConfig};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::Stream;
use super::record::{Protection, Schedule};
use crate::tls::config::server_name;
use crate::tls::{Error, PeerId, peer};

/// What rustls has for one side but not for both: the same steps with different types.
pub(super) trait Side: Sized {
    type State;

    fn process<'c, 'i>(
        &'c mut self,
        incoming: &'i mut [u8],
    ) -> UnbufferedStatus<'c, 'i, Self::State>;
    fn common(&self) -> &CommonState;
    fn take_over(self) -> Result<(ExtractedSecrets, KernelConnection<Self::State>), rustls::Error>;
    fn schedule(kernel: KernelConnection<Self::State>) -> Schedule;
}

pub(super) fn client(config: Arc<ClientConfig>) -> Result<UnbufferedClientConnection, Error> {
    Ok(UnbufferedClientConnection::new(config, server_name())?)
}

pub(super) fn server(config: Arc<ServerConfig>) -> Result<UnbufferedServerConnection, Error> {
    Ok(UnbufferedServerConnection::new(config)?)
}

/// What rustls wants after one step.
enum Step {
    Again,
    Read,
    Write,
    Done,
    Failed(rustls::Error),
}

/// A hello with its certificates fits; who needs more is not shaking hands.
const MAX_INCOMING_BYTES: usize = 128 << 10;
const READ_BYTES: usize = 4 << 10;

pub(super) async fn run<S: Side, T: AsyncRead + AsyncWrite + Unpin>(
    mut side: S,
    mut io: T,
) -> Result<(Stream<T>, PeerId), Error> {
    let mut incoming = BytesMut::with_capacity(READ_BYTES);
    let mut outgoing = Vec::new();
    let mut early = VecDeque::new();
    let mut failure = None;
    loop {
        match step(&mut side, &mut incoming, &mut outgoing, &mut early) {
            Step::Again => {}
            Step::Write => {
                io.write_all(&outgoing).await?;
                outgoing.clear();
            }
            Step::Read => {
                if incoming.len() > MAX_INCOMING_BYTES {
                    return Err(rustls::Error::PeerSentOversizedRecord.into());
                }
                incoming.reserve(READ_BYTES);
                if io.read_buf(&mut incoming).await? == 0 {
                    return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
                }
            }
            Step::Done => break,
            Step::Failed(error) => {
                // rustls encodes what is queued, the alert, before it looks at the input again. It
                // must not look: on input it has refused once it would assert that it had not.
                while side.common().wants_write() {
                    step(&mut side, &mut incoming, &mut outgoing, &mut early);
                }
                failure = Some(error);
                break;
            }
        }
    }
    io.write_all(&outgoing).await?;
    io.flush().await?;
    if let Some(error) = failure {
        let _ = io.shutdown().await; // the alert is a courtesy
        return Err(error.into());
    }
    let peer = peer(side.common())?;
    let (secrets, kernel) = side.take_over()?;
    let protection = Protection::new(S::schedule(kernel), secrets)?;
    Ok((Stream::new(io, protection, incoming, early), peer))
}

fn step<S: Side>(
    side: &mut S,
    incoming: &mut BytesMut,
    outgoing: &mut Vec<u8>,
    early: &mut VecDeque<Bytes>,
) -> Step {
    let UnbufferedStatus { mut discard, state } = side.process(incoming);
    let step = match state {
        Err(error) => Step::Failed(error),
        Ok(ConnectionState::EncodeTlsData(mut data)) => {
            match encode(outgoing, |buffer| data.encode(buffer)) {
                Ok(()) => Step::Again,
                Err(EncodeError::AlreadyEncoded | EncodeError::InsufficientSize(_)) => {
                    Step::Failed(rustls::Error::EncryptError)
                }
            }
        }
        Ok(ConnectionState::TransmitTlsData(data)) => {
            data.done();
            Step::Write
        }
        Ok(ConnectionState::ReadTraffic(mut traffic)) => {
            let mut failed = None;
            while let Some(record) = traffic.next_record() {
                match record {
                    Ok(record) => {
                        discard += record.discard;
                        if !record.payload.is_empty() {
                            early.push_back(Bytes::copy_from_slice(record.payload));
                        }
                    }
                    Err(error) => failed = Some(error),
                }
            }
            failed.map_or(Step::Again, Step::Failed)
        }
        Ok(ConnectionState::BlockedHandshake) => Step::Read,
        Ok(ConnectionState::WriteTraffic(_)) => Step::Done,
        Ok(_) => Step::Failed(rustls::Error::AlertReceived(rustls::AlertDescription::CloseNotify)),
    };
    incoming.advance(discard);
    match step {
        Step::Done if side.common().is_handshaking() => Step::Read,
        step => step,
    }
}

/// Lets `encode` append to `outgoing`, growing it once if it says so.
fn encode(
    outgoing: &mut Vec<u8>,
    mut encode: impl FnMut(&mut [u8]) -> Result<usize, EncodeError>,
) -> Result<(), EncodeError> {
    let start = outgoing.len();
    let mut room = 4 << 10;
    loop {
        outgoing.resize(start + room, 0);
        let result = encode(&mut outgoing[start..]);
        outgoing.truncate(start + result.as_ref().map_or(0, |count| *count));
        match result {
            Err(EncodeError::InsufficientSize(size)) if size.required_size > room => {
                room = size.required_size;
            }
            other => return other.map(|_| ()),
        }
    }
}

impl Side for UnbufferedClientConnection {
    type State = ClientConnectionData;

    fn process<'c, 'i>(
        &'c mut self,
        incoming: &'i mut [u8],
    ) -> UnbufferedStatus<'c, 'i, ClientConnectionData> {
        self.process_tls_records(incoming)
    }

    fn common(&self) -> &CommonState {
        self
    }

    fn take_over(
        self,
    ) -> Result<(ExtractedSecrets, KernelConnection<ClientConnectionData>), rustls::Error> {
        self.dangerous_into_kernel_connection()
    }

    fn schedule(kernel: KernelConnection<ClientConnectionData>) -> Schedule {
        Schedule::Client(kernel)
    }
}

impl Side for UnbufferedServerConnection {
    type State = ServerConnectionData;

    fn process<'c, 'i>(
        &'c mut self,
        incoming: &'i mut [u8],
    ) -> UnbufferedStatus<'c, 'i, ServerConnectionData> {
        self.process_tls_records(incoming)
    }

    fn common(&self) -> &CommonState {
        self
    }

    fn take_over(
        self,
    ) -> Result<(ExtractedSecrets, KernelConnection<ServerConnectionData>), rustls::Error> {
        self.dangerous_into_kernel_connection()
    }

    fn schedule(kernel: KernelConnection<ServerConnectionData>) -> Schedule {
        Schedule::Server(kernel)
    }
}

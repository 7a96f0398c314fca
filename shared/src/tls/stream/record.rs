//! Protection of records (RFC 8446 §5) with the keys that rustls agreed on.
//!
//! The algorithms come from the provider's cipher suite, so this works with every library behind
//! `tls::provider`. Key updates are answered; our own keys are replaced before their limit.

use bytes::{Buf, Bytes, BytesMut};
use rustls::client::ClientConnectionData;
use rustls::crypto::cipher::{AeadKey, InboundOpaqueMessage, Iv, MessageDecrypter};
use rustls::kernel::KernelConnection;
use rustls::server::ServerConnectionData;
use rustls::{
    AlertDescription, ConnectionTrafficSecrets, ContentType, Error, ExtractedSecrets,
    InvalidMessage, ProtocolVersion, Tls13CipherSuite,
};

use crate::tls::provider::{HEADER_BYTES, Sealer};

/// RFC 8446 §5.2: a protected record is at most this long.
const MAX_PROTECTED_BYTES: usize = (16 << 10) + 256;
/// Handshake messages that may be cut into several records: tickets, key updates.
const MAX_HANDSHAKE_BYTES: usize = 16 << 10;
/// Records without contents that may come in a row.
const MAX_EMPTY_RECORDS: u32 = 64;

const NEW_SESSION_TICKET: u8 = 4;
const KEY_UPDATE: u8 = 24;
const UPDATE_REQUESTED: u8 = 1;
const CLOSE_NOTIFY: [u8; 2] = [1, 0];

/// Keeps the key schedule of a connection.
pub(super) enum Schedule {
    Client(KernelConnection<ClientConnectionData>),
    Server(KernelConnection<ServerConnectionData>),
}

/// Both directions of a connection.
pub(super) struct Protection {
    schedule: Box<Schedule>,
    suite: &'static Tls13CipherSuite,
    opener: Box<dyn MessageDecrypter>,
    opened: u64,
    sealer: Sealer,
    sealed: u64,
    /// Records sealed with the current keys.
    wear: u64,
    handshake: Vec<u8>,
    empty_records: u32,
    key_update_due: bool,
}

/// What was at the front of the incoming bytes.
#[derive(Debug)]
pub(super) enum Opened {
    /// Application data, never empty.
    Contents(Bytes),
    /// A record that carries nothing for the application.
    Nothing,
    /// close_notify.
    End,
    /// More bytes are needed.
    Incomplete,
}

impl Protection {
    pub(super) fn new(schedule: Schedule, secrets: ExtractedSecrets) -> Result<Self, Error> {
        let suite = match &schedule {
            Schedule::Client(kernel) => kernel.negotiated_cipher_suite(),
            Schedule::Server(kernel) => kernel.negotiated_cipher_suite(),
        };
        let suite = suite.tls13().ok_or(Error::HandshakeNotComplete)?;
        let (sealed, key) = secrets.tx;
        let (key, iv) = parts(key)?;
        let sealer = Sealer::new(suite, key, iv)?;
        let (opened, key) = secrets.rx;
        let (key, iv) = parts(key)?;
        let opener = suite.aead_alg.decrypter(key, iv);
        Ok(Self {
            schedule: Box::new(schedule),
            suite,
            opener,
            opened,
            sealer,
            sealed,
            wear: sealed,
            handshake: Vec::new(),
            empty_records: 0,
            key_update_due: false,
        })
    }

    /// Opens the record at the front of `incoming`, in place.
    pub(super) fn open(&mut self, incoming: &mut BytesMut) -> Result<Opened, Error> {
        let Some(&[kind, _, _, high, low]) = incoming.first_chunk() else {
            return Ok(Opened::Incomplete);
        };
        let length = usize::from(u16::from_be_bytes([high, low]));
        if length > MAX_PROTECTED_BYTES {
            return Err(Error::PeerSentOversizedRecord);
        }
        if kind != u8::from(ContentType::ApplicationData) {
            return Err(InvalidMessage::InvalidContentType.into());
        }
        if incoming.len() < HEADER_BYTES + length {
            return Ok(Opened::Incomplete);
        }
        let mut record = incoming.split_to(HEADER_BYTES + length);
        record.advance(HEADER_BYTES);
        let protected = InboundOpaqueMessage::new(
            ContentType::ApplicationData,
            ProtocolVersion::TLSv1_2,
            &mut record,
        );
        let plain = self.opener.decrypt(protected, self.opened)?;
        self.opened = self.opened.checked_add(1).ok_or(Error::DecryptError)?;
        match plain.typ {
            ContentType::ApplicationData => {
                let length = plain.payload.len();
                record.truncate(length);
                self.contents(record)
            }
            ContentType::Alert => alert(plain.payload),
            ContentType::Handshake => {
                self.handshake.extend_from_slice(plain.payload);
                self.handshake_messages()?;
                self.nothing()
            }
            _ => Err(InvalidMessage::InvalidContentType.into()),
        }
    }

    fn contents(&mut self, record: BytesMut) -> Result<Opened, Error> {
        if !self.handshake.is_empty() {
            // RFC 8446 §5.1: nothing in between the pieces of a handshake message.
            return Err(Error::PeerMisbehaved(rustls::PeerMisbehaved::KeyEpochWithPendingFragment));
        }
        if record.is_empty() {
            return self.nothing();
        }
        self.empty_records = 0;
        Ok(Opened::Contents(record.freeze()))
    }

    fn nothing(&mut self) -> Result<Opened, Error> {
        self.empty_records += 1;
        if self.empty_records > MAX_EMPTY_RECORDS {
            return Err(Error::PeerMisbehaved(rustls::PeerMisbehaved::TooManyEmptyFragments));
        }
        Ok(Opened::Nothing)
    }

    fn handshake_messages(&mut self) -> Result<(), Error> {
        while let Some(&[kind, l0, l1, l2]) = self.handshake.first_chunk() {
            let length = u32::from_be_bytes([0, l0, l1, l2]) as usize;
            if length > MAX_HANDSHAKE_BYTES {
                return Err(InvalidMessage::HandshakePayloadTooLarge.into());
            }
            let Some(body) = self.handshake.get(4..4 + length) else { return Ok(()) };
            match (kind, body) {
                (NEW_SESSION_TICKET, _) => {} // connections are never resumed
                (KEY_UPDATE, &[request @ 0..=UPDATE_REQUESTED]) => {
                    if self.handshake.len() != 4 + length {
                        // RFC 8446 §5.1: a message before a key change ends its record.
                        let fault = rustls::PeerMisbehaved::KeyEpochWithPendingFragment;
                        return Err(Error::PeerMisbehaved(fault));
                    }
                    self.key_update_due |= request == UPDATE_REQUESTED;
                    let (opened, key) = self.schedule.next_opening()?;
                    let (key, iv) = parts(key)?;
                    self.opener = self.suite.aead_alg.decrypter(key, iv);
                    self.opened = opened;
                }
                _ => {
                    return Err(Error::InappropriateMessage {
                        expect_types: vec![ContentType::ApplicationData],
                        got_type: ContentType::Handshake,
                    });
                }
            }
            self.handshake.drain(..4 + length);
        }
        Ok(())
    }

    /// Appends one record with `contents`; before it, new keys if these are worn out.
    pub(super) fn seal(&mut self, contents: &[u8], into: &mut Vec<u8>) -> Result<(), Error> {
        if self.wear >= self.suite.common.confidentiality_limit - 1 {
            self.update_sealing(into)?;
        }
        self.record(ContentType::ApplicationData, contents, into)
    }

    /// Whether the peer has asked for new keys and not got them yet.
    pub(super) fn owes_key_update(&self) -> bool {
        self.key_update_due
    }

    /// RFC 8446 §4.6.3: a requested update is answered before the next application data.
    pub(super) fn answer_key_update(&mut self, into: &mut Vec<u8>) -> Result<(), Error> {
        if std::mem::take(&mut self.key_update_due) {
            self.update_sealing(into)?;
        }
        Ok(())
    }

    pub(super) fn seal_close(&mut self, into: &mut Vec<u8>) -> Result<(), Error> {
        self.record(ContentType::Alert, &CLOSE_NOTIFY, into)
    }

    fn update_sealing(&mut self, into: &mut Vec<u8>) -> Result<(), Error> {
        self.record(ContentType::Handshake, &[KEY_UPDATE, 0, 0, 1, 0], into)?;
        let (sealed, key) = self.schedule.next_sealing()?;
        let (key, iv) = parts(key)?;
        self.sealer = Sealer::new(self.suite, key, iv)?;
        (self.sealed, self.wear) = (sealed, sealed);
        Ok(())
    }

    /// As if the limit of the sealing keys were reached.
    #[cfg(test)]
    pub(super) fn wear_out(&mut self) {
        self.wear = u64::MAX;
    }

    fn record(
        &mut self,
        typ: ContentType,
        contents: &[u8],
        into: &mut Vec<u8>,
    ) -> Result<(), Error> {
        self.sealer.seal(typ, contents, self.sealed, into)?;
        self.sealed += 1;
        self.wear = self.wear.saturating_add(1);
        Ok(())
    }
}

impl Schedule {
    fn next_opening(&mut self) -> Result<(u64, ConnectionTrafficSecrets), Error> {
        match self {
            Self::Client(kernel) => kernel.update_rx_secret(),
            Self::Server(kernel) => kernel.update_rx_secret(),
        }
    }

    fn next_sealing(&mut self) -> Result<(u64, ConnectionTrafficSecrets), Error> {
        match self {
            Self::Client(kernel) => kernel.update_tx_secret(),
            Self::Server(kernel) => kernel.update_tx_secret(),
        }
    }
}

fn alert(payload: &[u8]) -> Result<Opened, Error> {
    match payload {
        [_, 0] => Ok(Opened::End),
        [_, description] => Err(Error::AlertReceived(AlertDescription::from(*description))),
        _ => Err(InvalidMessage::InvalidContentType.into()),
    }
}

fn parts(secrets: ConnectionTrafficSecrets) -> Result<(AeadKey, Iv), Error> {
    match secrets {
        ConnectionTrafficSecrets::Aes128Gcm { key, iv }
        | ConnectionTrafficSecrets::Aes256Gcm { key, iv } => Ok((key, iv)),
        _ => Err(Error::General("keys of an unexpected cipher suite".into())),
    }
}

//! SETTINGS: what the peer told us, and what we tell it.

use bytes::{BufMut, Bytes, BytesMut};

use super::frame::{Header, Reason, StreamId, kind};
use super::streams::DEFAULT_WINDOW;
use super::{Role, Violation};
use crate::hbone::Config;

const ENABLE_PUSH: u16 = 2;
const MAX_CONCURRENT_STREAMS: u16 = 3;
const INITIAL_WINDOW_SIZE: u16 = 4;
const MAX_FRAME_SIZE: u16 = 5;
const MAX_HEADER_LIST_SIZE: u16 = 6;

/// RFC 9113 §6.5.2: bounds and default of SETTINGS_MAX_FRAME_SIZE.
pub(super) const DEFAULT_MAX_FRAME_BYTES: u32 = 16_384;
const LARGEST_MAX_FRAME_BYTES: u32 = 16_777_215;

/// The peer's values that matter to us.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer {
    pub(super) initial_window_bytes: u32,
    pub(super) max_frame_bytes: u32,
    pub(super) max_streams: u32,
}

impl Peer {
    pub(super) fn assumed(config: &Config) -> Self {
        Self {
            initial_window_bytes: DEFAULT_WINDOW,
            max_frame_bytes: DEFAULT_MAX_FRAME_BYTES,
            max_streams: config.max_streams,
        }
    }

    /// RFC 9113 §6.5.3: values are taken in order; unknown ones are ignored.
    pub(super) fn update(&mut self, payload: &Bytes, role: Role) -> Result<(), Violation> {
        if !payload.len().is_multiple_of(6) {
            return Err(Violation::new(Reason::FRAME_SIZE_ERROR, "settings frame of odd size"));
        }
        for setting in payload.chunks_exact(6) {
            let (name, value) = setting.split_at(2);
            let name = u16::from_be_bytes([name[0], name[1]]);
            let value = u32::from_be_bytes([value[0], value[1], value[2], value[3]]);
            match name {
                ENABLE_PUSH if value > 1 || (value == 1 && role == Role::Client) => {
                    return Err(Violation::new(Reason::PROTOCOL_ERROR, "bad push setting"));
                }
                MAX_CONCURRENT_STREAMS => self.max_streams = value,
                INITIAL_WINDOW_SIZE if value > 0x7fff_ffff => {
                    return Err(Violation::new(Reason::FLOW_CONTROL_ERROR, "bad initial window"));
                }
                INITIAL_WINDOW_SIZE => self.initial_window_bytes = value,
                MAX_FRAME_SIZE => {
                    if !(DEFAULT_MAX_FRAME_BYTES..=LARGEST_MAX_FRAME_BYTES).contains(&value) {
                        return Err(Violation::new(Reason::PROTOCOL_ERROR, "bad frame size"));
                    }
                    self.max_frame_bytes = value;
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// Our SETTINGS frame.
pub(super) fn write(config: &Config, role: Role, output: &mut BytesMut) {
    let mut values = vec![
        (INITIAL_WINDOW_SIZE, config.first_window_bytes()),
        (MAX_FRAME_SIZE, config.max_frame_bytes),
        (MAX_HEADER_LIST_SIZE, config.max_header_list_bytes),
    ];
    match role {
        Role::Client => values.push((ENABLE_PUSH, 0)),
        Role::Server => values.push((MAX_CONCURRENT_STREAMS, config.max_streams)),
    }
    let length = values.len() as u32 * 6;
    Header { length, kind: kind::SETTINGS, flags: 0, stream: StreamId::CONNECTION }.write(output);
    for (name, value) in values {
        output.put_u16(name);
        output.put_u32(value);
    }
}

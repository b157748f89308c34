//! What is sent on a socket: a text frame that is made once and shared by all sockets it goes to.

use bytes::Bytes;
use serde::Serialize;

/// The largest header a frame of a server has: two bytes and a length of eight.
const HEADER: usize = 10;

/// A WebSocket text frame, header included. A server does not mask, so the same bytes serve every socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharedFrame(Bytes);

impl SharedFrame {
    /// The frame around the text that `write` appends. The text must be UTF-8.
    pub fn build(write: impl FnOnce(&mut Vec<u8>)) -> Self {
        let mut bytes = vec![0; HEADER];
        write(&mut bytes);
        let length = bytes.len() - HEADER;
        let (start, head) = match length {
            0..126 => (HEADER - 2, [length as u8].to_vec()),
            126..65_536 => (HEADER - 4, [&[126], &(length as u16).to_be_bytes()[..]].concat()),
            _ => (0, [&[127], &(length as u64).to_be_bytes()[..]].concat()),
        };
        // The last frame of a message (0x80), text (0x1).
        bytes[start] = 0x81;
        bytes[start + 1..HEADER].copy_from_slice(&head);
        SharedFrame(Bytes::from(bytes).slice(start..))
    }

    /// The frame around a text.
    pub fn text(text: &str) -> Self {
        Self::build(|out| out.extend_from_slice(text.as_bytes()))
    }

    /// The frame around a value's JSON.
    pub fn json(value: &impl Serialize) -> Self {
        Self::build(|out| write_json(out, value))
    }

    /// What goes onto the connection.
    pub fn bytes(&self) -> &Bytes {
        &self.0
    }

    /// The text without the header.
    pub fn payload(&self) -> &[u8] {
        let start = match self.0.get(1) {
            Some(126) => 4,
            Some(127) => 10,
            _ => 2,
        };
        self.0.get(start..).unwrap_or_default()
    }
}

/// Appends a value's JSON. Values of ours are maps with text keys and finite numbers, which always have one.
pub(crate) fn write_json(out: &mut Vec<u8>, value: &impl Serialize) {
    let before = out.len();
    if serde_json::to_writer(&mut *out, value).is_err() {
        out.truncate(before);
        out.extend_from_slice(b"null");
    }
}

#[cfg(test)]
mod tests {
    use tokio_tungstenite::tungstenite::protocol::frame::Frame;
    use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};

    use super::*;

    #[test]
    fn a_frame_is_what_a_websocket_library_would_send() {
        for length in [0, 1, 125, 126, 65_535, 65_536, 200_000] {
            let text = "a".repeat(length);
            let mut expected = Vec::new();
            Frame::message(text.clone(), OpCode::Data(Data::Text), true).format(&mut expected).unwrap();
            let frame = SharedFrame::text(&text);
            assert_eq!(frame.bytes(), &expected, "length {length}");
            assert_eq!(frame.payload(), text.as_bytes());
        }
    }
}

//! Frames: what goes out for a question, and what of that which comes in is its answer.
//!
//! tokio-modbus has no public framing, and its clients take what comes first for the answer: over RTU, where nothing but the
//! unit tells answers apart, a late one is taken for the next. So frames are told apart here, by everything that is known of
//! the question: transaction (TCP), unit, function code, number of bytes, CRC (RTU). What is inside is the library's.

use tokio_modbus::Response;
use tokio_modbus::bytes::Bytes;

use super::config::Table;

/// How frames are wrapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// With a header of seven bytes (Modbus Messaging on TCP/IP V1.0b, 3.1.3).
    Tcp,
    /// With the unit before and a CRC behind (Modbus over Serial Line V1.02, 2.5.1).
    Rtu,
}

/// A question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Asked {
    /// Its number; only TCP sends it.
    pub(super) transaction: u16,
    pub(super) unit: u8,
    pub(super) table: Table,
    pub(super) offset: u16,
    pub(super) quantity: u16,
}

/// What the device said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// As many registers as were asked for.
    Words(Vec<u16>),
    /// At least as many bits as were asked for.
    Bits(Vec<bool>),
    /// Another number than was asked for: nobody knows which is which.
    WrongLength,
    /// An exception, by its code (Modbus Application Protocol V1.1b3, section 7). The link is fine.
    Refused(u8),
}

/// Why a frame was discarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Oddity {
    /// It answers another transaction, which was never asked.
    Transaction,
    /// Another unit says it.
    Unit,
    /// It answers another function.
    Function,
    /// It has fewer or more data than were asked for, or ends too soon.
    Length,
    /// Its CRC is wrong, or it is no frame at all.
    Crc,
    /// It answers what has been given up, or came when nobody asked.
    Late,
}

impl Oddity {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Transaction, Self::Unit, Self::Function, Self::Length, Self::Crc, Self::Late];

    /// For metrics.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Transaction => "transaction",
            Self::Unit => "unit",
            Self::Function => "function",
            Self::Length => "length",
            Self::Crc => "crc",
            Self::Late => "late",
        }
    }

    /// For people who look for the reason.
    pub(super) fn hint(self) -> &'static str {
        match self {
            Self::Transaction | Self::Unit | Self::Function | Self::Late => "the device answered another question",
            Self::Length => "the device answered with another number of data than it was asked for",
            Self::Crc => "what comes is garbled; look at baud rate, parity and wiring",
        }
    }
}

/// What stands at the beginning of what came over TCP.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// Not all of a frame yet.
    Partial,
    /// The answer, in so many bytes.
    Answer(Answer, usize),
    /// A frame of so many bytes that is to be discarded, and its transaction.
    Odd(Oddity, u16, usize),
    /// No frame of this protocol.
    Garbage,
}

/// A stretch of what came over RTU that is not the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stray {
    pub(super) oddity: Oddity,
    /// Whose frame it is, if it is one: with the right CRC.
    pub(super) unit: Option<u8>,
}

/// Bytes of a TCP frame before its length counts.
const PREFIX: usize = 6;

impl Asked {
    /// The bytes to send. Always one of the function codes 1 to 4.
    pub(super) fn encode(&self, framing: Framing) -> Vec<u8> {
        let mut frame = Vec::with_capacity(12);
        if framing == Framing::Tcp {
            frame.extend(self.transaction.to_be_bytes());
            frame.extend([0, 0, 0, 6]);
        }
        frame.extend([self.unit, self.table.function()]);
        frame.extend(self.offset.to_be_bytes());
        frame.extend(self.quantity.to_be_bytes());
        if framing == Framing::Rtu {
            frame.extend(crc(&frame).to_le_bytes());
        }
        frame
    }

    /// How many bytes of data the answer has.
    fn data(&self) -> usize {
        let quantity = usize::from(self.quantity);
        if self.table.is_bits() { quantity.div_ceil(8) } else { 2 * quantity }
    }

    /// How long the answer is over RTU.
    pub(super) fn rtu_length(&self) -> usize {
        5 + self.data()
    }

    /// What stands at the beginning of `bytes`.
    pub(super) fn find_tcp(&self, bytes: &[u8]) -> Found {
        let Some((header, _)) = bytes.split_at_checked(PREFIX) else { return Found::Partial };
        let length = usize::from(u16::from_be_bytes([header[4], header[5]]));
        if header[2..4] != [0, 0] || !(3..=254).contains(&length) {
            return Found::Garbage;
        }
        let Some(frame) = bytes.get(..PREFIX + length) else { return Found::Partial };
        let transaction = u16::from_be_bytes([header[0], header[1]]);
        let odd = |oddity| Found::Odd(oddity, transaction, frame.len());
        let (unit, pdu) = (frame[PREFIX], &frame[PREFIX + 1..]);
        if transaction != self.transaction {
            return odd(Oddity::Transaction);
        }
        if unit != self.unit {
            return odd(Oddity::Unit);
        }
        match self.answer(pdu) {
            Some(answer) => Found::Answer(answer, frame.len()),
            None => odd(Oddity::Function),
        }
    }

    /// The answer in `bytes`, wherever it begins, and where it ends. Its length is known and it has a CRC, so what stands
    /// before it, be it noise or somebody else's frame, hides nothing.
    pub(super) fn find_rtu(&self, bytes: &[u8]) -> Option<(Answer, std::ops::Range<usize>)> {
        let function = self.table.function();
        (0..bytes.len()).find_map(|start| {
            let frame = &bytes[start..];
            let length = match *frame {
                [unit, said, count, ..]
                    if (unit, said) == (self.unit, function) && usize::from(count) == self.data() =>
                {
                    self.rtu_length()
                }
                [unit, said, ..] if (unit, said) == (self.unit, function | 0x80) => 5,
                _ => return None,
            };
            let pdu = checked(frame.get(..length)?)?;
            Some((self.answer(pdu)?, start..start + length))
        })
    }

    /// What all of these bytes, in which the answer is not, are.
    pub(super) fn sweep(&self, mut bytes: &[u8]) -> Vec<Stray> {
        let mut strays = Vec::new();
        let mut noise = 0; // bytes since the last frame
        while !bytes.is_empty() {
            let Some(frame) = frame_at(bytes) else {
                noise += 1;
                bytes = &bytes[1..];
                continue;
            };
            if noise > 0 {
                strays.push(Stray { oddity: Oddity::Crc, unit: None });
                noise = 0;
            }
            let oddity = match frame[1] & 0x7F {
                _ if frame[0] != self.unit => Oddity::Unit,
                function if function != self.table.function() => Oddity::Function,
                _ => Oddity::Length,
            };
            strays.push(Stray { oddity, unit: Some(frame[0]) });
            bytes = &bytes[frame.len()..];
        }
        if noise > 0 {
            let oddity = if noise < self.rtu_length() { Oddity::Length } else { Oddity::Crc };
            strays.push(Stray { oddity, unit: None });
        }
        strays
    }

    /// What a PDU says, if it is about this function.
    fn answer(&self, pdu: &[u8]) -> Option<Answer> {
        let function = self.table.function();
        match *pdu {
            [said, code, ..] if said == function | 0x80 => return Some(Answer::Refused(code)),
            [said, count, ref data @ ..] if said == function => {
                if usize::from(count) != self.data() || data.len() != self.data() {
                    return Some(Answer::WrongLength);
                }
            }
            _ => return None,
        }
        Some(match Response::try_from(Bytes::copy_from_slice(pdu)) {
            Ok(Response::ReadHoldingRegisters(words) | Response::ReadInputRegisters(words)) => Answer::Words(words),
            Ok(Response::ReadCoils(bits) | Response::ReadDiscreteInputs(bits)) => Answer::Bits(bits),
            _ => Answer::WrongLength,
        })
    }
}

/// The frame that `bytes` begins with: an answer to function 1 to 4, or a refusal, with the right CRC.
pub(super) fn frame_at(bytes: &[u8]) -> Option<&[u8]> {
    let length = match *bytes {
        [_, 1..=4, count, ..] => 5 + usize::from(count),
        [_, said, ..] if said & 0x80 != 0 => 5,
        _ => return None,
    };
    let frame = bytes.get(..length)?;
    checked(frame).map(|_| frame)
}

/// The PDU in an RTU frame, if its CRC is right.
fn checked(frame: &[u8]) -> Option<&[u8]> {
    let (said, check) = frame.split_last_chunk::<2>()?;
    (crc(said) == u16::from_le_bytes(*check)).then_some(&said[1..])
}

/// CRC-16/MODBUS (Modbus over Serial Line V1.02, 6.2.2).
pub(crate) fn crc(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0xFFFF, |crc, byte| {
        (0..8).fold(crc ^ u16::from(*byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xA001 } else { crc >> 1 })
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ASKED: Asked = Asked { transaction: 7, unit: 1, table: Table::Holding, offset: 0, quantity: 2 };

    fn rtu(body: &[u8]) -> Vec<u8> {
        [body, &crc(body).to_le_bytes()].concat()
    }

    fn right() -> Vec<u8> {
        rtu(&[1, 3, 4, 0, 10, 0, 11])
    }

    #[test]
    fn questions_are_as_in_the_specification() {
        let asked = Asked { transaction: 0x1501, unit: 0x11, table: Table::Holding, offset: 0x6B, quantity: 3 };
        assert_eq!(asked.encode(Framing::Tcp), [0x15, 1, 0, 0, 0, 6, 0x11, 3, 0, 0x6B, 0, 3]);
        assert_eq!(asked.encode(Framing::Rtu), [0x11, 3, 0, 0x6B, 0, 3, 0x76, 0x87]);
        // tokio-modbus has the same in a test of its own.
        assert_eq!(crc(&[0x01, 0x03, 0x08, 0x2B, 0x00, 0x02]), 0x63B6);
    }

    #[test]
    fn over_tcp_only_the_right_transaction_unit_and_function_answer() {
        let frame = |transaction: u8, unit: u8, pdu: &[u8]| {
            let length = u8::try_from(pdu.len() + 1).expect("short");
            [&[0, transaction, 0, 0, 0, length, unit], pdu].concat()
        };
        let pdu = [3, 4, 0, 10, 0, 11];
        let whole = frame(7, 1, &pdu);
        assert_eq!(ASKED.find_tcp(&whole), Found::Answer(Answer::Words(vec![10, 11]), 13));
        for end in 0..whole.len() {
            assert_eq!(ASKED.find_tcp(&whole[..end]), Found::Partial, "{end}");
        }
        assert_eq!(ASKED.find_tcp(&frame(6, 1, &pdu)), Found::Odd(Oddity::Transaction, 6, 13));
        assert_eq!(ASKED.find_tcp(&frame(7, 2, &pdu)), Found::Odd(Oddity::Unit, 7, 13));
        assert_eq!(ASKED.find_tcp(&frame(7, 1, &[4, 4, 0, 10, 0, 11])), Found::Odd(Oddity::Function, 7, 13));
        assert_eq!(ASKED.find_tcp(&frame(7, 1, &[0x83, 2])), Found::Answer(Answer::Refused(2), 9));
        assert_eq!(ASKED.find_tcp(&frame(7, 1, &[3, 2, 0, 10])), Found::Answer(Answer::WrongLength, 11));
        assert_eq!(ASKED.find_tcp(&frame(7, 1, &[3, 4, 0, 10])), Found::Answer(Answer::WrongLength, 11));
        assert_eq!(ASKED.find_tcp(b"HTTP/1.1 400"), Found::Garbage);
    }

    #[test]
    fn over_rtu_the_answer_is_found_behind_whatever_came_before() {
        let expected = Some(Answer::Words(vec![10, 11]));
        let other = rtu(&[2, 3, 4, 0, 1, 0, 2]);
        let noise = vec![0x00, 0xFF, 0x01, 0x03];
        let echo = ASKED.encode(Framing::Rtu);
        for before in [vec![], other, noise, echo, rtu(&[1, 3, 2, 0, 9])] {
            let bytes = [before.clone(), right()].concat();
            assert_eq!(ASKED.find_rtu(&bytes).map(|(answer, _)| answer), expected, "{before:?}");
            assert_eq!(ASKED.find_rtu(&bytes[..bytes.len() - 1]), None);
        }
        let refused = rtu(&[1, 0x83, 2]);
        assert_eq!(ASKED.find_rtu(&refused), Some((Answer::Refused(2), 0..5)));
    }

    #[test]
    fn what_is_discarded_has_a_kind() {
        let kinds = |bytes: &[u8]| ASKED.sweep(bytes).into_iter().map(|stray| stray.oddity).collect::<Vec<_>>();
        let mut garbled = right();
        garbled[4] ^= 0x40;
        assert_eq!(kinds(&[]), []);
        assert_eq!(kinds(&garbled), [Oddity::Crc]);
        assert_eq!(kinds(&right()[..6]), [Oddity::Length]);
        assert_eq!(kinds(&rtu(&[2, 3, 4, 0, 1, 0, 2])), [Oddity::Unit]);
        assert_eq!(kinds(&rtu(&[1, 4, 4, 0, 1, 0, 2])), [Oddity::Function]);
        assert_eq!(kinds(&rtu(&[1, 3, 2, 0, 1])), [Oddity::Length]);
        assert_eq!(kinds(&[garbled, rtu(&[2, 0x83, 4])].concat()), [Oddity::Crc, Oddity::Unit]);
    }

    proptest! {
        /// Whatever comes, nothing panics, and nothing but a frame with the right CRC is believed.
        #[test]
        fn bytes_from_anywhere_are_no_answer(bytes in proptest::collection::vec(any::<u8>(), 0..600), cut in 0..9_usize) {
            let _ = ASKED.find_tcp(&bytes);
            let _ = ASKED.sweep(&bytes);
            if let Some((_, range)) = ASKED.find_rtu(&bytes) {
                prop_assert!(checked(&bytes[range]).is_some());
            }
            let mut broken = right();
            broken[cut] ^= 1 << (bytes.len() % 8);
            prop_assert_eq!(ASKED.find_rtu(&broken), None);
        }
    }
}

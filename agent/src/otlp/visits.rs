//! Visits as spans: one for each stay of a unit at a station, and one trace for all stays of a unit.
//!
//! Identifiers are hashes of what they name, so the spans of one unit find each other whoever sends them, and a resend is
//! the same span:
//! - trace: FNV-1a, 128 bits, of site, line and serial;
//! - span: FNV-1a, 64 bits, of serial, station and the arrival in nanoseconds since 1970 (8 bytes, little endian).
//!
//! The parts of a name are followed by a zero byte each, which none of them holds.

use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;

use crate::otlp::attribute::{STATION, flag, nanos, text};
use crate::record::Visit;

/// A unit's stay.
pub(super) fn span(site: &str, line: &str, visit: &Visit) -> Span {
    let mut attributes = vec![text(STATION, &*visit.station), text("factory.serial", &*visit.serial)];
    attributes.extend(visit.product.as_ref().map(|product| text("factory.product", &**product)));
    attributes.extend(visit.lot.as_ref().map(|lot| text("factory.lot", &**lot)));
    attributes.push(flag("factory.visit.arrival_seen", visit.arrival_seen));
    attributes.push(flag("factory.visit.departure_seen", visit.departure_seen));
    Span {
        trace_id: trace_id(site, line, &visit.serial).to_vec(),
        span_id: span_id(visit).to_vec(),
        flags: 1, // sampled
        name: "factory.visit".to_owned(),
        kind: SpanKind::Internal as i32,
        start_time_unix_nano: nanos(visit.from),
        end_time_unix_nano: nanos(visit.to),
        attributes,
        ..Span::default()
    }
}

fn trace_id(site: &str, line: &str, serial: &str) -> [u8; 16] {
    const BASIS: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
    let hash = named([site, line, serial]).fold(BASIS, |hash, byte| (hash ^ u128::from(byte)).wrapping_mul(PRIME));
    hash.max(1).to_be_bytes() // zero is no identifier
}

fn span_id(visit: &Visit) -> [u8; 8] {
    const BASIS: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    let bytes = named([&*visit.serial, &*visit.station]).chain(visit.from.0.to_le_bytes());
    let hash = bytes.fold(BASIS, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(PRIME));
    hash.max(1).to_be_bytes()
}

fn named<'a, const N: usize>(parts: [&'a str; N]) -> impl Iterator<Item = u8> + use<'a, N> {
    parts.into_iter().flat_map(|part| part.bytes().chain([0]))
}

#[cfg(test)]
mod tests {
    use gemba_drivers::Time;

    use super::*;

    fn visit(station: &str, serial: &str, from: i64) -> Visit {
        Visit {
            station: station.into(),
            serial: serial.into(),
            product: Some("A-17".into()),
            lot: None,
            from: Time(from),
            to: Time(from + 5),
            arrival_seen: true,
            departure_seen: false,
        }
    }

    #[test]
    fn a_serial_at_two_stations_is_one_trace_of_two_spans() {
        let of = |visit: &Visit| span("fab-2", "smt-1", visit);
        let (printer, aoi) = (of(&visit("printer-1", "SN1", 10)), of(&visit("aoi-1", "SN1", 20)));
        assert_eq!(printer.trace_id, aoi.trace_id);
        assert_ne!(printer.span_id, aoi.span_id);
        assert_eq!(of(&visit("printer-1", "SN1", 10)), printer, "told again it is the same span");
        let again = of(&visit("printer-1", "SN1", 30));
        assert!(again.trace_id == printer.trace_id && again.span_id != printer.span_id, "it came back for rework");
        assert_ne!(of(&visit("printer-1", "SN2", 10)).trace_id, printer.trace_id);
        assert_ne!(span("fab-2", "smt-2", &visit("printer-1", "SN1", 10)).trace_id, printer.trace_id);
        assert_ne!(trace_id("a", "bc", "d"), trace_id("ab", "c", "d"));
    }

    #[test]
    fn anybody_comes_to_the_same_identifiers() {
        // Worked out apart from this code, since others must come to the same.
        let trace = [100, 99, 173, 204, 171, 103, 138, 54, 161, 32, 150, 135, 85, 15, 235, 101];
        assert_eq!(trace_id("fab-2", "smt-1", "SN1"), trace);
        assert_eq!(span_id(&visit("printer-1", "SN1", 10)), [69, 103, 202, 143, 135, 194, 118, 173]);
    }
}

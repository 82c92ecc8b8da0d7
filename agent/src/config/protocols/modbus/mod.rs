//! Modbus: registers and bits of devices that share a connection.

mod words;

use std::sync::Arc;
use std::time::Duration;

use gemba_drivers::modbus;
use gemba_drivers::modbus::{DataType, First, Limits, Line, Order};

use self::words::{Address, Endpoint};
use super::{Known, Protocol, Speaks, Wire};
use crate::config::error::Report;
use crate::config::raw::StationOf;
use crate::config::resolve::{Agreed, Links, TagFacts, Told};
use crate::config::section::{At, join, section};
use crate::config::suggest;
use crate::config::units::{HOUR, SECOND, Span};
use crate::config::words::{OneOf, Whole};

/// The protocol.
#[derive(Debug)]
pub(in crate::config) struct Modbus;

section! {
    /// A Modbus device, gateway or serial line. Stations that name the same endpoint share it, whatever their unit.
    ModbusSource {
        /// The protocol.
        r#type: Known => required;
        /// `tcp://host:port` (Modbus TCP), `rtu:///dev/ttyS0?baud=19200&parity=even&stop_bits=1&data_bits=8` (a serial line, with
        /// its defaults) or `rtu+tcp://host:port` (RTU frames over TCP); the port is 502 unless said.
        endpoint: Endpoint => required;
        /// The unit identifier: 1 to 247, or 255 for the device itself.
        unit: Whole<1, 255> => default(1);
        /// How often the tags are read.
        poll: Span<10, HOUR> => default("1s");
        /// How long the unit may take to answer one request, and a connect may take; unless said what another station of the
        /// endpoint says.
        timeout: Span<10, { 300 * SECOND }> => default("2s");
        /// What the endpoint rests between two requests, on a serial line beside the silence of 3.5 characters.
        pause: Span<0, { 10 * SECOND }> => default("0s");
        /// How many registers that no tag needs are read along rather than made into a second request; of bits 16 times as many.
        max_gap: Whole<0, 124> => default(16);
        /// The most registers in one request; of bits 16 times as many.
        max_registers: Whole<1, 125> => default(125);
        /// Which word of a value comes first, the high one or the low one; for all tags that do not say.
        word_order: OneOf<First> => optional;
        /// Which byte of a register comes first.
        byte_order: OneOf<First> => optional;
        /// Both in one, as manuals write it: `ABCD` is big and big, `CDAB` little words, `BADC` little bytes, `DCBA` both.
        order: OneOf<Order> => optional;
    }
}

section! {
    /// A Modbus register or bit.
    ModbusTag {
        /// Its first register or bit, counted from zero: `holding:0`, `input:10`, `coil:3`, `discrete:7`; one bit of a register,
        /// 0 being the lowest: `holding:5.3`.
        address: Address => required;
        /// How its registers are read; needed for registers, always `bool` for coils, discrete inputs and bits of registers.
        r#as: OneOf<DataType> => optional;
        /// Of a `string`, how many bytes it has, two to the register; ASCII or UTF-8, and NULs and spaces at its end are none of it.
        length: Whole<1, 250> => optional;
        /// So many of them, one behind the other: the tags are named `name.0`, `name.1` and so on.
        count: Whole<1, 2000> => optional;
        /// How often it is read, instead of the source's `poll`.
        poll: Span<10, HOUR> => optional;
        /// Which word comes first, instead of the source's `word_order`.
        word_order: OneOf<First> => optional;
        /// Which byte of a register comes first, instead of the source's `byte_order`.
        byte_order: OneOf<First> => optional;
        /// Both in one, instead of the source's.
        order: OneOf<Order> => optional;
    }
}

impl Speaks for Modbus {
    const PROTOCOL: Protocol = Protocol::Modbus;
    type Source = ModbusSource;
    type Tag = ModbusTag;

    /// Bits are always `bool`.
    fn data_type(tag: &ModbusTag) -> Option<DataType> {
        let bit = tag.address.as_ref().is_some_and(|address| is_bit(address.value.0));
        tag.r#as.as_ref().map(|data_type| data_type.0).or(bit.then_some(DataType::Bool))
    }

    fn parts(tag: &ModbusTag) -> Option<u32> {
        tag.count.as_ref().and_then(|count| u32::try_from(count.0).ok())
    }

    fn join(links: &mut Links, station: &StationOf<Self>, told: &Told<'_>, report: &mut Report) -> Option<usize> {
        let source = &station.source.as_ref()?.value.0;
        let limits = limits(source);
        let tags = tags(station, source, limits, told.facts, report);
        source.r#type.as_ref()?;
        if let Some(unit) = source.unit.as_ref().filter(|unit| (248..=254).contains(&unit.0)) {
            unit.wrong(
                report,
                format!(
                    "`{}` is a reserved unit identifier; 1 to 247, or 255 for the device itself",
                    unit.origin.shown
                ),
            );
        }
        let written = source.endpoint.as_ref()?;
        let bus = written.endpoint.bus();
        let same = |wire: &Wire| matches!(wire, Wire::Modbus(draft) if draft.config.endpoint.bus() == bus);
        let index = links.join(told.who, written, &bus, same, || Wire::Modbus(Draft::new(written.endpoint.clone())));
        let Wire::Modbus(draft) = links.wire(index) else { return None };
        if let modbus::Endpoint::Rtu { line, .. } = &written.endpoint
            && written.sets_line
        {
            draft.line.say(told.who, &source.endpoint, |_| *line, report);
        }
        draft.pause.say(told.who, &source.pause, |pause| pause.0, report);
        let timeout = source.timeout.as_ref()?;
        if timeout.origin.written {
            draft.timeout = draft.timeout.max(Some(timeout.0));
        }
        let unit = u8::try_from(source.unit.as_ref()?.0).ok()?;
        for (poll, tags) in by_interval(tags, source.poll.as_ref()?.0) {
            let station = Arc::clone(&told.who.name);
            let group = modbus::Group { station, unit, poll, timeout: timeout.0, limits, tags };
            draft.groups.push((group, timeout.origin.written));
        }
        Some(index)
    }
}

/// The link in the making.
pub(in crate::config) struct Draft {
    config: modbus::Config,
    line: Agreed<Line>,
    pause: Agreed<Duration>,
    /// The longest that is said.
    timeout: Option<Duration>,
    /// Each with whether its timeout is its own.
    groups: Vec<(modbus::Group, bool)>,
}

/// How long a device may take, unless somebody says.
const TIMEOUT: Duration = Duration::from_secs(2);

impl Draft {
    fn new(endpoint: modbus::Endpoint) -> Self {
        let config = modbus::Config { endpoint, timeout: TIMEOUT, pause: Duration::ZERO, groups: Vec::new() };
        let (line, pause) = (Agreed::nobody(Line::default()), Agreed::nobody(Duration::ZERO));
        Self { config, line, pause, timeout: None, groups: Vec::new() }
    }

    pub(super) fn finish(self) -> modbus::Config {
        let timeout = self.timeout.unwrap_or(TIMEOUT);
        let endpoint = match self.config.endpoint {
            modbus::Endpoint::Rtu { path, .. } => modbus::Endpoint::Rtu { path, line: self.line.value },
            other => other,
        };
        let group = |(group, own)| if own { group } else { modbus::Group { timeout, ..group } };
        let groups = self.groups.into_iter().map(group).collect();
        modbus::Config { endpoint, timeout, pause: self.pause.value, groups }
    }
}

/// Each interval is a group of its own, in order of first mention. A station without a tag has one all the same, which
/// says where it is.
fn by_interval(tags: Vec<(modbus::Tag, Option<Duration>)>, usual: Duration) -> Vec<(Duration, Vec<modbus::Tag>)> {
    let mut groups: Vec<(Duration, Vec<modbus::Tag>)> = Vec::new();
    for (tag, poll) in tags {
        let poll = poll.unwrap_or(usual);
        match groups.iter_mut().find(|(known, _)| *known == poll) {
            Some((_, tags)) => tags.push(tag),
            None => groups.push((poll, vec![tag])),
        }
    }
    if groups.is_empty() {
        groups.push((usual, Vec::new()));
    }
    groups
}

fn is_bit(address: modbus::Address) -> bool {
    address.table.is_bits() || address.bit.is_some()
}

fn limits(source: &ModbusSource) -> Limits {
    let whole = |value: u64| u16::try_from(value).unwrap_or(u16::MAX);
    let usual = Limits::default();
    Limits {
        max_gap: source.max_gap.as_ref().map_or(usual.max_gap, |gap| whole(gap.0)),
        max_registers: source.max_registers.as_ref().map_or(usual.max_registers, |most| whole(most.0)),
    }
}

/// The order that these options say, where they say nothing `usual`.
fn order(
    both: &Option<At<OneOf<Order>>>,
    words: &Option<At<OneOf<First>>>,
    bytes: &Option<At<OneOf<First>>>,
    usual: Order,
    report: &mut Report,
) -> Order {
    if let Some(both) = both {
        if words.is_some() || bytes.is_some() {
            both.wrong(report, "says the order of words and of bytes; leave out `word_order` and `byte_order`");
        }
        return both.0;
    }
    Order {
        words: words.as_ref().map_or(usual.words, |first| first.0),
        bytes: bytes.as_ref().map_or(usual.bytes, |first| first.0),
    }
}

/// What the driver reads for a Modbus station, each with its own interval if it has one.
fn tags(
    station: &StationOf<Modbus>,
    source: &ModbusSource,
    limits: Limits,
    facts: &[TagFacts],
    report: &mut Report,
) -> Vec<(modbus::Tag, Option<Duration>)> {
    let usual = order(&source.order, &source.word_order, &source.byte_order, Order::default(), report);
    let mut facts = facts.iter();
    let mut tags = Vec::with_capacity(facts.len());
    for tag in station.tags.iter().flat_map(|tags| &tags.value) {
        let parts = Modbus::parts(&tag.value.own).unwrap_or(1);
        let facts: Vec<_> = facts.by_ref().take(parts as usize).collect();
        let options = &tag.value.own;
        let order = order(&options.order, &options.word_order, &options.byte_order, usual, report);
        let poll = options.poll.as_ref().map(|poll| poll.0);
        let Some(like) = facts.first().and_then(|facts| one(tag, facts, limits, report)) else { continue };
        let like = modbus::Tag { order, ..like };
        let placed = facts.iter().zip(0..).map_while(|(facts, part)| {
            place(like.address, like.width(), part).map(|address| modbus::Tag { id: facts.id, address, ..like })
        });
        let before = tags.len();
        tags.extend(placed.map(|tag| (tag, poll)));
        if tags.len() - before < facts.len()
            && let Some(written) = &options.address
        {
            let (shown, width) = (&written.origin.shown, like.width());
            let what = if parts > 1 { format!("{parts} times {width}") } else { width.to_string() };
            written.wrong(report, format!("`{shown}` with {what} registers goes beyond the last one, 65535"));
        }
    }
    tags
}

/// Where the `part` of something that is `width` wide stands, if that is in its table: bits of registers run on into the next.
fn place(first: modbus::Address, width: u16, part: u32) -> Option<modbus::Address> {
    let (offset, bit) = match first.bit {
        Some(bit) => {
            let bits = u32::from(bit) + part;
            (u32::from(first.offset) + bits / 16, u8::try_from(bits % 16).ok())
        }
        None => (u32::from(first.offset) + u32::from(width) * part, None),
    };
    let inside = offset + u32::from(width) <= 65_536;
    Some(modbus::Address { offset: u16::try_from(offset).ok().filter(|_| inside)?, bit, ..first })
}

/// The tag, or the first one of an array.
fn one(tag: &At<super::Tag<Modbus>>, facts: &TagFacts, limits: Limits, report: &mut Report) -> Option<modbus::Tag> {
    let options = &tag.value.own;
    let written = options.address.as_ref()?;
    let address = written.value.0;
    let Some(data_type) = facts.data_type else {
        if !report.knows(&join(&tag.origin.path, "as")) {
            let types = suggest::list(DataType::NAMES);
            tag.wrong(report, format!("the key `as` is missing: how are the registers read? Write {types}"));
        }
        return None;
    };
    if is_bit(address) && data_type != DataType::Bool {
        if let Some(said) = &options.r#as {
            said.wrong(
                report,
                format!(
                    "`{}` is read from registers; `{}` is a single bit, so `bool`",
                    said.origin.shown, written.origin.shown
                ),
            );
        }
        return None;
    }
    match (&options.length, data_type) {
        (None, DataType::Text) => {
            if !report.knows(&join(&tag.origin.path, "length")) {
                tag.wrong(report, "the key `length` is missing: how many bytes has the text?");
            }
            return None;
        }
        (Some(length), data_type) if data_type != DataType::Text => {
            length.wrong(report, format!("only a `string` has a length, and this is a `{}`", data_type.name()));
            return None;
        }
        _ => {}
    }
    let length = options.length.as_ref().and_then(|length| u16::try_from(length.0).ok()).unwrap_or_default();
    let one = modbus::Tag { length, ..modbus::Tag::new(facts.id, address, data_type) };
    if one.width() > limits.max_registers {
        let (width, most) = (one.width(), limits.max_registers);
        written.wrong(
            report,
            format!("`{}` takes {width} registers, and `max_registers` is {most}", written.origin.shown),
        );
        return None;
    }
    Some(one)
}

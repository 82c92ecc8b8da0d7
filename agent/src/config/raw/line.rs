//! What may be said of the line as a whole: its days, reasons, products, costs, and how parts flow through it.

use serde_json::{Value, json};

use crate::config::amounts::Amount;
use crate::config::calendar::{Date, WallTime, When};
use crate::config::error::Report;
use crate::config::section::{At, Leaf, Shape, section};
use crate::config::tree::{Kind, Node};
use crate::config::units::{DAY, Span};
use crate::config::words::{Currency, Flag, Name, OneOf, Word};
use crate::model::{Bucket, LineBy};

use super::Break;

section! {
    /// Days that are not as the week has them.
    Calendar {
        /// Days on which no shift starts. Without shifts: days that are not planned.
        holidays: Vec<At<Date>> => optional;
        /// Days with shifts of their own.
        exceptional_days: Vec<At<ExceptionalDay>> => optional;
    }
}

section! {
    /// A day with shifts of its own.
    ExceptionalDay {
        /// Which day, such as 2026-12-24.
        date: Date => required;
        /// What people call it.
        name: Name => optional;
        /// What starts on it instead of the week's shifts; an empty list: nothing.
        shifts: Vec<At<DayShift>> => required;
    }
}

section! {
    /// A shift of an exceptional day, in wall-clock time.
    DayShift {
        /// Its name (`factory.shift`), mostly that of a shift of the week.
        name: Name => required;
        /// When it starts, such as "06:00".
        start: WallTime<false> => required;
        /// When it ends; at or before `start` means the next day.
        end: WallTime<true> => required;
        /// Time in it that is not planned for production.
        breaks: Vec<At<Break>> => optional;
    }
}

section! {
    /// Why a machine may stand. What a reason says holds for those below it, unless they say otherwise.
    Reason {
        /// Its code, unique in the line (`factory.reason`).
        code: Name => required;
        /// What people call it; its code unless said.
        name: Name => optional;
        /// Where its time belongs, whatever `oee.losses` says of the state: `run`, `performance`, `availability` or
        /// `not_planned`.
        bucket: OneOf<Bucket> => optional;
        /// Somebody wanted it so (`factory.planned`); false unless said.
        planned: Flag => optional;
        /// It counts for MTBF and MTTR. Without a word: down is a failure, other states are not.
        is_failure: Flag => optional;
        /// The reasons below it.
        reasons: Below => optional;
    }
}

/// The reasons below a reason, which are as it is.
#[derive(Debug)]
pub(in crate::config) struct Below(pub(in crate::config) Vec<At<Reason>>);

impl Shape for Below {
    fn read(node: &Node, report: &mut Report) -> Option<Self> {
        Shape::read(node, report).map(Self)
    }

    fn schema() -> Value {
        // A schema that held itself would never end.
        json!({ "type": "array", "items": { "$ref": "#/properties/reasons/items" } })
    }
}

impl Word for Bucket {
    const WHAT: &'static str = "bucket";
    const FORM: &'static str = "`run`, `performance`, `availability` or `not_planned`";

    fn all() -> Vec<(&'static str, Self)> {
        Self::ALL.into_iter().map(|bucket| (bucket.word(), bucket)).collect()
    }
}

section! {
    /// What may be made.
    Product {
        /// As the context tag tells it.
        name: Name => required;
        /// The time a part takes at best, or a list of such times, each valid from an instant on; without it that of the
        /// station counts.
        ideal_cycle_time: Cycle => optional;
        /// The time between two parts that are asked for; the ideal cycle time unless said.
        takt: Span<1, DAY> => optional;
        /// How many parts a cycle makes, such as the cavities of a mould, for counters that count cycles.
        parts_per_cycle: Amount<false> => optional;
        /// Opportunities for a defect in one part (DPMO).
        opportunities: Amount<false> => optional;
        /// What the material of one part costs.
        material_cost: Amount<true> => optional;
    }
}

/// An ideal cycle time, from ever or from instants on.
#[derive(Debug)]
pub(in crate::config) enum Cycle {
    Always(Span<1, DAY>),
    Since(Vec<At<CycleSince>>),
}

section! {
    /// An ideal cycle time and since when it holds.
    CycleSince {
        /// An instant such as `2026-01-01T06:00:00Z`, or without an offset in the line's time zone; the first may leave it out,
        /// and holds from ever.
        from: When => optional;
        /// The time a part takes at best.
        time: Span<1, DAY> => required;
    }
}

impl Shape for Cycle {
    fn read(node: &Node, report: &mut Report) -> Option<Self> {
        if matches!(node.kind, Kind::List(_)) {
            return Shape::read(node, report).map(Self::Since);
        }
        Shape::read(node, report).map(Self::Always)
    }

    fn schema() -> Value {
        let mut schema = <Span<1, DAY> as Leaf>::schema();
        schema["type"] = json!(["string", "array"]);
        schema["items"] = CycleSince::schema();
        schema
    }
}

section! {
    /// What time and energy cost.
    Costs {
        /// The currency of every cost of the line, by its ISO 4217 code, such as `EUR`.
        currency: Currency => required;
        /// What a kilowatt-hour costs.
        energy_per_kwh: Amount<true> => optional;
        /// What an hour of a station costs, whatever it does: machine and people.
        time_per_hour: Amount<true> => optional;
    }
}

section! {
    /// What time and energy cost at a station, in the line's currency.
    Rates {
        /// What a kilowatt-hour costs.
        energy_per_kwh: Amount<true> => optional;
        /// What an hour costs, whatever it does: machine and people.
        time_per_hour: Amount<true> => optional;
    }
}

section! {
    /// How parts flow through the line.
    Flow {
        /// The stations, in the order in which a part comes by; those of the line in the order written unless said.
        stations: Vec<At<Name>> => optional;
        /// The station that sets the pace: its ideal cycle time is that of the line. Without it there is no OEE of the line.
        constraint: Name => optional;
        /// The station whose good parts are those of the line; the last of `stations` unless said.
        end: Name => optional;
        /// Whose pace the line is measured by: `constraint`, `last`, or `weighted` for all stations by their planned time.
        oee: OneOf<LineBy> => default("constraint");
    }
}

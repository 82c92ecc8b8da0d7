//! What may be said of what is computed for a station.

use serde_json::{Value, json};

use crate::config::amounts::Amount;
use crate::config::error::Report;
use crate::config::resolve::Preset;
use crate::config::section::{At, Entries, Section, Shape, expect_map, refuse_unknown, section};
use crate::config::tree::Node;
use crate::config::units::{DAY, HOUR, Rate, SECOND, Span};
use crate::config::words::{Fraction, Name, OneOf, Whole, Word};
use crate::model::{LateBy, Preset as Losses, State};

use super::Rates;

section! {
    /// What is computed. Any two of total, good and reject give the third.
    Oee {
        /// The time a part takes at best; without it performance and OEE cannot be known.
        ideal_cycle_time: Span<1, DAY> => optional;
        /// Which tag tells the state, or that it follows from the counts.
        state: StateTag => optional;
        /// Counts all parts.
        total: Counter => optional;
        /// Counts good parts.
        good: Counter => optional;
        /// Counts rejected parts.
        reject: Counter => optional;
        /// Counts reworked parts: good after all, and not at the first pass.
        rework: Counter => optional;
        /// Where time belongs: `vorne`, `umh`, `iso22400` or `semi_e79`.
        losses: OneOf<Losses> => default("vorne");
        /// Stops so short that they are slow running.
        micro_stops: MicroStops => optional;
        /// Which tags tell why it stands.
        reasons: Vec<At<ReasonTag>> => optional;
        /// The first reason that was told within so long before or after the beginning of a stop is its reason; those that
        /// follow from it are not.
        first_out: Span<0, DAY> => default("5s");
        /// Counts energy.
        energy: Energy => optional;
        /// What time and energy cost here, where that is not as on the line.
        costs: Rates => optional;
        /// Later stations whose rejects count here, when the part was made.
        late_rejects: Vec<At<LateRejects>> => optional;
        /// Below this coverage oee, availability and performance are withheld.
        min_coverage: Fraction => default(0.5);
        /// What start-ups are, whose rejects are a loss apart from those of the process.
        startup: Startup => optional;
        /// How long the last minutes are that stand beside the shift as `rolling`; rounded up to full ones.
        rolling: Span<{ 60 * SECOND }, DAY> => optional;
    }
}

section! {
    /// Which tag tells the state, and in what words.
    StateKeys {
        /// One of the station's tags.
        tag: Name => required;
        /// A standard's states, by name and number: `machinery`, `machine_vision` or `packml`.
        preset: OneOf<Preset> => optional;
        /// From the tag's value to the state: `{ 1: producing, 2: down }` or `{ Execute: producing }`. Required without a
        /// `preset`; beside one it adds to it, and counts where both have a value.
        map: Entries<OneOf<State>> => optional;
    }
}

section! {
    /// No tag tells the state: it follows from the counts.
    CountedState {
        /// `counts`: it is producing while parts come.
        from: OneOf<StateFrom> => required;
        /// It stands when no part came for so many ideal cycle times.
        stopped_after: Amount<false> => default(3);
        /// What it is then.
        r#as: OneOf<State> => default("down");
    }
}

/// How the state is known: by a map, a standard or both, or from the counts.
#[derive(Debug)]
pub(in crate::config) enum StateTag {
    Told(StateKeys),
    Counted(CountedState),
}

impl Shape for StateTag {
    fn read(node: &Node, report: &mut Report) -> Option<Self> {
        expect_map(node, report)?;
        let (told, counted) = (StateKeys::KEYS, CountedState::KEYS);
        if node.get("from").is_some() {
            let hint = |key: &str| told.contains(&key).then(|| "the state follows from the counts here".to_owned());
            refuse_unknown(node, counted, &hint, report);
            return CountedState::read_keys(node, report).map(Self::Counted);
        }
        let hint = |key: &str| counted.contains(&key).then(|| "it belongs to a state `from: counts`".to_owned());
        refuse_unknown(node, &[told, &["from"]].concat(), &hint, report);
        let keys = StateKeys::read_keys(node, report)?;
        if node.get("map").is_none() && node.get("preset").is_none() {
            node.wrong(report, "the key `map` is missing (or `preset`)");
        }
        Some(Self::Told(keys))
    }

    fn schema() -> Value {
        let (mut schema, mut counted) = (StateKeys::describe(), CountedState::describe());
        if let (Some(all), Some(more)) = (schema["properties"].as_object_mut(), counted["properties"].as_object_mut()) {
            all.append(more);
        }
        schema["required"] = json!([]);
        schema["oneOf"] = json!([
            { "required": ["tag"], "anyOf": [{ "required": ["map"] }, { "required": ["preset"] }],
              "properties": { "from": false, "stopped_after": false, "as": false } },
            { "required": ["from"], "properties": { "tag": false, "map": false, "preset": false } },
        ]);
        schema
    }
}

/// What a state follows from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::config) enum StateFrom {
    /// Parts.
    Counts,
}

impl Word for StateFrom {
    const WHAT: &'static str = "source of a state";
    const FORM: &'static str = "`counts`";

    fn all() -> Vec<(&'static str, Self)> {
        vec![("counts", Self::Counts)]
    }
}

section! {
    /// A tag that counts parts.
    Counter {
        /// One of the station's tags.
        tag: Name => required;
        /// Where it rolls over to zero: 65536 for a 16-bit register that counts through; without it a fall is a reset.
        modulus: Whole<2, { 1 << 53 }> => optional;
        /// A jump of the counter above this rate goes to the loss ledger instead of the counts.
        max_rate: Rate => optional;
        /// Parts that one count stands for; 1 unless said.
        parts_per_count: Amount<false> => optional;
        /// `parts`, or `cycles`: each of them makes the product's `parts_per_cycle`.
        counts: OneOf<Counts> => default("parts");
    }
}

/// What a counter counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::config) enum Counts {
    Parts,
    Cycles,
}

impl Word for Counts {
    const WHAT: &'static str = "thing to count";
    const FORM: &'static str = "`parts` or `cycles`";

    fn all() -> Vec<(&'static str, Self)> {
        vec![("parts", Self::Parts), ("cycles", Self::Cycles)]
    }
}

section! {
    /// Stops so short that they are slow running: performance loss instead of availability loss.
    MicroStops {
        /// A stop shorter than this is one.
        limit: Span<1, DAY> => required;
        /// In which states.
        states: Vec<At<OneOf<State>>> => default(["starved", "blocked", "idle", "down"]);
    }
}

section! {
    /// When a machine starts up: from when it runs again after one of these states.
    Startup {
        /// After which states.
        after: Vec<At<OneOf<State>>> => default(["setup"]);
        /// It lasts for so much run time.
        r#for: Span<1, DAY> => optional;
        /// Or until so many parts were made, good or not.
        parts: Amount<false> => optional;
    }
}

section! {
    /// A tag that tells why the machine stands.
    ReasonTag {
        /// One of the station's tags.
        tag: Name => required;
        /// From the tag's value to the code of a reason: `{ 17: feeder-jam }`, `{ true: e-stop }`. A value that is not listed
        /// is no reason.
        map: Entries<Name> => required;
    }
}

section! {
    /// A later station whose rejects count here, when the part was made.
    LateRejects {
        /// The station that rejects, by its `inspection` if that has a verdict, else by its `oee.reject`.
        from: Name => required;
        /// How a part is known again there: by its `serial`, or by its `lot`; both stations tag it in `context`.
        by: OneOf<LateBy> => required;
        /// The longest that may lie between.
        within: Span<SECOND, { 26 * HOUR }> => default("8h");
    }
}

impl Word for LateBy {
    const WHAT: &'static str = "way to know a part again";
    const FORM: &'static str = "`serial` or `lot`";

    fn all() -> Vec<(&'static str, Self)> {
        Self::ALL.into_iter().map(|by| (by.word(), by)).collect()
    }
}

section! {
    /// A tag that counts energy.
    Energy {
        /// One of the station's tags.
        tag: Name => required;
        /// What it counts: `J`, `kJ`, `MJ`, `GJ`, `Wh`, `kWh` or `MWh`; the tag's unit unless said.
        unit: OneOf<EnergyUnit> => optional;
        /// How much of the unit one count stands for, as on the plate of a pulse meter; 1 unless said.
        per_count: Amount<false> => optional;
        /// Where it rolls over to zero; without it a fall is a reset.
        modulus: Whole<2, { 1 << 53 }> => optional;
        /// A jump of the counter above this rate goes to the loss ledger.
        max_rate: Rate => optional;
    }
}

/// A unit of energy, by what it is in joules.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::config) struct EnergyUnit(pub(in crate::config) f64);

impl Word for EnergyUnit {
    const WHAT: &'static str = "unit of energy";
    const FORM: &'static str = "a unit of energy such as `kWh` or `J`";

    /// A watt-hour is 3600 J (SI Brochure, 9th edition, table 8). UCUM writes it with a point.
    fn all() -> Vec<(&'static str, Self)> {
        let joules = [("J", 1.0), ("kJ", 1e3), ("MJ", 1e6), ("GJ", 1e9)];
        let hours = [("Wh", 3.6e3), ("kWh", 3.6e6), ("MWh", 3.6e9), ("W.h", 3.6e3), ("kW.h", 3.6e6), ("MW.h", 3.6e9)];
        joules.into_iter().chain(hours).map(|(word, joules)| (word, Self(joules))).collect()
    }
}

impl Word for Losses {
    const WHAT: &'static str = "way to tell losses apart";
    const FORM: &'static str = "`vorne`, `umh`, `iso22400` or `semi_e79`";

    fn all() -> Vec<(&'static str, Self)> {
        Self::ALL.into_iter().map(|losses| (losses.word(), losses)).collect()
    }
}

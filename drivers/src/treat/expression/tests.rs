use proptest::prelude::*;

use super::*;

const TAGS: [&str; 6] = ["volts", "amps", "state", "line.temp", "zone-1", "in"];

fn compiled(text: &str) -> Result<(Expression, Vec<usize>), Mistake> {
    let draft = Draft::read(text, &TAGS)?;
    let inputs = draft.inputs().to_vec();
    Ok((draft.check(&vec![Kind::Any; inputs.len()])?, inputs))
}

/// With volts 230, amps 2.5, state "Execute", line.temp 7, zone-1 5, in true.
fn value(text: &str) -> Result<Value, String> {
    let values = [
        Value::Int(230),
        Value::Float(2.5),
        Value::Text("Execute".into()),
        Value::Int(7),
        Value::Int(5),
        Value::Bool(true),
    ];
    let (expression, inputs) = compiled(text).map_err(|mistake| mistake.to_string())?;
    let inputs: Vec<&Value> = inputs.iter().map(|at| &values[*at]).collect();
    expression.evaluate(&inputs).map_err(|failed| failed.to_string())
}

#[test]
fn numbers_mix() {
    for (text, expected) in [
        ("volts * amps", 575.0),
        ("volts / 4", 57.5),
        ("volts + 1", 231.0),
        ("1 / 2 + volts * 0", 0.5),
        ("-amps", -2.5),
        ("line.temp % 4 + 0.5", 3.5),
        ("size(state) / 2", 3.5),
        ("volts > 200 && amps < 3 ? 1 : 0.5", 1.0),
        ("math.greatest(amps, 1, volts)", 230.0),
        ("math.least(amps, 1)", 1.0),
        ("math.abs(1 - volts) + math.sqrt(4 + 0 * amps)", 231.0),
        ("math.round(amps + 0.1)", 3.0),
        ("double(\"2.5\") + volts", 232.5),
    ] {
        assert_eq!(value(text), Ok(Value::Float(expected)), "{text}");
    }
}

#[test]
fn whole_numbers_where_they_are_asked_for() {
    for (text, expected) in [
        ("int(volts / 4)", 57),
        ("volts % 100", 30),
        ("math.bitAnd(zone_1, 4)", 4),
        ("math.bitShiftRight(int(volts), 1)", 115),
        ("size(state)", 7),
    ] {
        let text = text.replace("zone_1", "tags[\"zone-1\"]");
        assert_eq!(value(&text), Ok(Value::Int(expected)), "{text}");
    }
}

#[test]
fn truth_and_text() {
    for (text, expected) in [
        ("state == \"Execute\"", true),
        ("state in [\"Held\", 'Execute']", true),
        ("line.temp in [1, 2, 3]", false),
        ("volts == 230", true),
        ("!tags[\"in\"] || volts >= 230.0", true),
        ("math.bitAnd(tags[\"zone-1\"], 2) == 0", true),
        ("state.startsWith(\"Exe\") && !state.contains('x ')", true),
        ("state < \"F\"", true),
    ] {
        assert_eq!(value(text), Ok(Value::Bool(expected)), "{text}");
    }
    assert_eq!(value("state + \"/\" + string(line.temp > 5)"), Ok(Value::Text("Execute/true".into())));
}

#[test]
fn what_comes_to_nothing_fails() {
    for text in [
        "1 / (volts - 230)",
        "volts % 0",
        "volts * state",
        "state ? 1 : 2",
        "int(volts * 1e300)",
        "double(state)",
        "math.sqrt(-volts)",
    ] {
        assert!(value(text).is_err(), "{text}: {:?}", value(text));
    }
}

#[test]
fn mistakes_are_found_before_anything_runs() {
    for (text, message) in [
        ("volts * amp", "`amp` is no tag of this station"),
        ("1 + 1", "the expression names no tag of this station"),
        ("abs(volts)", "`abs` is no function"),
        ("math.foo(volts)", "`math.foo` is no function"),
        ("state.size()", "`size` is no function"),
        ("volts * true", "`*` needs a number, and this is a truth value; write `x ? 1 : 0` for a number"),
        ("volts + \"x\" + 1", "`+` stands between text and a number"),
        ("volts * 2 == \"x\"", "`==` stands between a number and text"),
        ("volts > 1 ? 1 : \"no\"", "`? :` stands between a number and text"),
        ("(volts + 1) ? 1 : 2", "`? :` needs a truth value, and this is a number; write `x != 0` for a truth value"),
        ("volts in [1, \"a\"]", "a list of a number has no text"),
        ("[volts]", "a list is no value of a tag"),
        ("volts in amps", "`in` needs a list, as in `state in [2, 3]`"),
        ("{1: volts}", "maps and loops have no use here"),
        ("volts[0]", "`[…]` stands only in `tags[\"name\"]`, the name in quotes"),
        ("tags[\"zone-2\"]", "`zone-2` is no tag of this station"),
        ("line.tmp", "`line.tmp` is no tag of this station"),
        ("size(volts, amps)", "`size` takes 1 value, not 2"),
    ] {
        let told = compiled(text).map(|_| ()).map_err(|mistake| mistake.to_string());
        assert_eq!(told, Err(message.to_owned()), "{text}");
    }
    for text in ["volts *", "volts amps", "", "\"open", "volts ~ 2", "a.?b"] {
        assert!(matches!(compiled(text), Err(Mistake::Syntax(_))), "{text}: {:?}", compiled(text));
    }
}

#[test]
fn what_is_known_of_the_inputs_is_held_against_the_expression() {
    let draft = |text| Draft::read(text, &TAGS).expect("it can be read");
    let told = draft("volts * state").check(&[Kind::Number, Kind::Text]).map(|_| ());
    assert_eq!(told, Err(Mistake::Type("`*` needs a number, and this is text".to_owned())));
    let kind = |text, kinds: &[Kind]| draft(text).check(kinds).map(|expression| expression.kind());
    assert_eq!(kind("volts + amps", &[Kind::Any, Kind::Any]), Ok(Kind::Any));
    assert_eq!(kind("volts + amps", &[Kind::Number, Kind::Any]), Ok(Kind::Number));
    assert_eq!(kind("state + \"!\"", &[Kind::Any]), Ok(Kind::Text));
    assert_eq!(kind("volts > amps", &[Kind::Number, Kind::Any]), Ok(Kind::Bool));
}

#[test]
fn an_expression_has_bounds() {
    let deep = format!("{}volts{}", "(".repeat(40), ")".repeat(40));
    let chain = format!("volts{}", " - 1".repeat(100));
    let wide = format!("volts in [{}]", vec!["1"; 320].join(","));
    for text in [deep, chain, wide, "volts + ".repeat(200)] {
        assert!(compiled(&text).is_err(), "{text}");
    }
    // Signs in a row are no depth to the parser: two are none.
    assert_eq!(value(&("!".repeat(900) + "tags[\"in\"]")), Ok(Value::Bool(true)));
    assert_eq!(value(&("-".repeat(901) + "volts")), Ok(Value::Float(-230.0)));
}

proptest! {
    #[test]
    fn no_text_panics(text in "[a-z0-9.\"'()\\[\\]{}?:!&|<>=+*/%, -]{0,60}") {
        let _ = compiled(&text);
    }

    /// Whatever passes the check comes to a value or fails, and is never of another type than was said.
    #[test]
    fn kinds_are_kept(left in -1e6_f64..1e6, right in -100_i64..100, sign in prop::sample::select(vec!["+", "-", "*", "/", "%", "<", "=="])) {
        let draft = Draft::read(&format!("volts {sign} amps"), &TAGS).expect("it can be read");
        let expression = draft.check(&[Kind::Number, Kind::Number]).expect("it fits");
        if let Ok(value) = expression.evaluate(&[&Value::Float(left), &Value::Int(right)]) {
            prop_assert_eq!(matches!(value, Value::Bool(_)), expression.kind() == Kind::Bool);
        }
    }
}

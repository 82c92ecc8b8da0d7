//! Published examples of control charts, inspections and drift, as a reader of `gemba replay --format json` sees them: readings
//! in, figures out. The numbers stand in tests/fixtures/vectors.

use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::{Value as Json, json};

/// An example of one of the files.
struct Vector(Json);

impl Vector {
    fn of(file: &str, id: &str) -> Self {
        let all: Vec<Json> = serde_json::from_str(file).expect("the vectors are JSON");
        Self(all.into_iter().find(|one| one["id"] == id).expect("it is there"))
    }

    fn spc(id: &str) -> Self {
        Self::of(include_str!("../../tests/fixtures/vectors/spc.json"), id)
    }

    fn quality(id: &str) -> Self {
        Self::of(include_str!("../../tests/fixtures/vectors/quality.json"), id)
    }

    fn at(&self, path: &str) -> &Json {
        self.0.pointer(path).unwrap_or_else(|| panic!("no {path}"))
    }

    fn number(&self, path: &str) -> f64 {
        self.at(path).as_f64().expect("a number")
    }

    fn list(&self, path: &str) -> Vec<f64> {
        self.at(path).as_array().expect("a list").iter().map(|one| one.as_f64().expect("a number")).collect()
    }

    /// Within the example's own tolerance.
    #[track_caller]
    fn is(&self, found: &Json, path: &str) {
        self.near(found, self.number(path), self.number("/tol"));
    }

    #[track_caller]
    fn limits(&self, found: &Json, path: &str, tolerance: f64) {
        let printed = self.list(path);
        self.near(&found["lower"], printed[0], tolerance);
        self.near(&found["upper"], printed[1], tolerance);
    }

    #[track_caller]
    #[expect(clippy::unused_self, reason = "reads as a sentence")]
    fn near(&self, found: &Json, printed: f64, tolerance: f64) {
        let number = found.as_f64().unwrap_or_else(|| panic!("{found} is no number"));
        assert!((number - printed).abs() <= tolerance, "{number} for {printed}");
    }
}

/// A station that is told over MQTT, and what watches it.
fn config(watch: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::Builder::new().suffix(".yaml").tempfile().expect("a file");
    write!(
        file,
        r#"
site: fab-2
line: smt-1
timezone: UTC
products: [{{ name: board, opportunities: 6 }}, {{ name: frame, opportunities: 2 }}, {{ name: lid }}]
stations:
  - name: lathe-1
    source: {{ type: mqtt, endpoint: "mqtt://127.0.0.1:1", topics: [{{ topic: lathe }}] }}
    tags:
      - {{ name: x, path: "$.x" }}
      - {{ name: total, path: "$.total" }}
      - {{ name: bad, path: "$.bad" }}
      - {{ name: verdict, path: "$.verdict" }}
      - {{ name: unit, path: "$.unit" }}
      - {{ name: says, path: "$.says" }}
      - {{ name: of, path: "$.of" }}
      - {{ name: defects, path: "$.defects" }}
      - {{ name: product, path: "$.product" }}
    context: {{ product: {{ tag: product }} }}
{watch}
"#
    )
    .expect("written");
    file
}

/// `seconds` after 2026-03-02T06:00:00Z.
fn put(seconds: usize, tag: &str, value: impl Into<Json>) -> Json {
    let start: jiff::Timestamp = "2026-03-02T06:00:00Z".parse().expect("a time");
    let time = start + jiff::SignedDuration::from_secs(i64::try_from(seconds).expect("small"));
    json!({"station": "lathe-1", "tag": tag, "value": value.into(), "source_time": time.to_string()})
}

/// Values of one tag, a second apart.
fn series(tag: &str, values: &[f64]) -> Vec<Json> {
    values.iter().enumerate().map(|(second, value)| put(second, tag, *value)).collect()
}

fn replay(watch: &str, readings: &[Json]) -> Json {
    let config = config(watch);
    let mut child = Command::new(env!("CARGO_BIN_EXE_gemba"))
        .args(["replay", "--format", "json", "--config"])
        .arg(config.path())
        .arg("-")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    let lines: String = readings.iter().map(|reading| format!("{reading}\n")).collect();
    let mut stdin = child.stdin.take().expect("piped");
    stdin.write_all(lines.as_bytes()).expect("it reads");
    drop(stdin);
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// The numbers of the points that `rule` of `chart` flagged.
fn flagged(report: &Json, chart: &str, rule: &str) -> Vec<Json> {
    let all = report["violations"].as_array().expect("violations").iter();
    let of = all.filter(|one| one["chart"] == chart && one["rule"] == rule && one["part"] == "location");
    of.map(|one| one["points"].as_array().and_then(|points| points.last()).expect("points")["index"].clone()).collect()
}

/// Readings of the piston rings: of phase 1, and all.
fn rings(vector: &Vector) -> (usize, Vec<Json>) {
    let (offset, scale) = (vector.number("/offset"), vector.number("/scale"));
    let values: Vec<_> = vector.list("/x").iter().map(|x| offset + scale * x).collect();
    let whole = |path: &str| usize::try_from(vector.at(path).as_u64().expect("whole")).expect("small");
    (whole("/subgroup_size") * whole("/phase1_subgroups"), series("x", &values))
}

#[test]
fn piston_rings() {
    let vector = Vector::spc("piston-rings");
    let (phase_1, readings) = rings(&vector);
    let watch = "
    spc:
      - { name: rings, tag: x, chart: xbar_r, subgroup: 5, phase_1: 25, rules: [western_electric],
          spec_limits: { lower: 73.95, upper: 74.05 } }
      - { name: average, tag: x, chart: ewma, subgroup: 5, phase_1: 25, lambda: 0.2, width: 3 }
      - { name: sum, tag: x, chart: cusum, subgroup: 5, phase_1: 25, k: 0.5, h: 5 }";
    let first = replay(watch, &readings[..phase_1]);
    let chart = &first["charts"][0];
    vector.is(&chart["sigma"], "/sigma_within");
    vector.is(&chart["last"]["location"]["center"], "/grand_mean");
    vector.is(&chart["last"]["spread_limits"]["center"], "/r_bar");
    vector.limits(&chart["last"]["location"], "/xbar_limits", vector.number("/tol"));
    vector.limits(&chart["last"]["spread_limits"], "/r_limits", 1e-6);
    let capability = &chart["capability"][0];
    assert_eq!(capability["window"], "phase_1");
    for (found, path, tolerance) in [
        ("cp", "/capability_73.95_74.05/cp", 5e-4),
        ("cpk", "/capability_73.95_74.05/cpk", 5e-4),
        ("pp", "/derived/pp", 5e-6),
        ("ppk", "/derived/ppk", 5e-6),
    ] {
        vector.near(&capability[found], vector.number(path), tolerance);
    }
    vector.is(&first["charts"][1]["last"]["weighed"], "/derived/ewma_z25");
    vector.limits(&first["charts"][1]["last"]["location"], "/ewma_lambda0.2_L3/limits_25", 5e-6);

    let all = replay(watch, &readings);
    assert_eq!(all["charts"][0]["last"]["location"], chart["last"]["location"], "frozen");
    for (rule, path) in [
        ("western_electric_1", "/derived/rule1_beyond_3s"),
        ("western_electric_2", "/derived/rule_2_of_3_beyond_2s"),
        ("western_electric_3", "/derived/rule_4_of_5_beyond_1s"),
        ("western_electric_4", "/derived/rule_8_same_side"),
    ] {
        assert_eq!(&Json::from(flagged(&all, "rings", rule)), vector.at(path), "{rule}");
    }
    assert_eq!(flagged(&all, "sum", "cusum").first(), Some(vector.at("/derived/cusum_k0.5_h5_se_first_signal")));
}

#[test]
fn viscosity_of_single_readings() {
    let vector = Vector::spc("imr-viscosity");
    let watch = "
    spc: [{ name: viscosity, tag: x, chart: i_mr, phase_1: 20, rules: [nelson_1] }]";
    let report = replay(watch, &series("x", &vector.list("/x")));
    let chart = &report["charts"][0];
    vector.is(&chart["sigma"], "/sigma");
    vector.is(&chart["last"]["location"]["center"], "/mean");
    vector.limits(&chart["last"]["location"], "/limits", vector.number("/tol"));
    assert_eq!(&Json::from(flagged(&report, "viscosity", "nelson_1")), vector.at("/out_1based"));
}

/// Counters that stand at zero, and then add one sample after the other, a minute apart.
fn counted(samples: &[f64], size: f64) -> Vec<Json> {
    let (mut bad, mut total) = (0.0, 0.0);
    let mut readings = vec![put(0, "bad", 0.0), put(0, "total", 0.0)];
    for (minute, sample) in samples.iter().enumerate() {
        bad += sample;
        total += size;
        readings.push(put(60 * minute + 30, "bad", bad));
        readings.push(put(60 * minute + 30, "total", total));
    }
    readings.push(put(60 * samples.len() + 30, "bad", bad));
    readings
}

#[test]
fn defective_parts_of_samples() {
    let vector = Vector::spc("p-chart");
    let watch = "
    spc: [{ name: share, chart: p, defective: { tag: bad }, inspected: { tag: total }, subgroup: 50, phase_1: 30 }]";
    let report = replay(watch, &counted(&vector.list("/defective"), vector.number("/n")));
    let last = &report["charts"][0]["last"];
    vector.is(&last["location"]["center"], "/p_bar");
    vector.limits(&last["location"], "/limits", vector.number("/tol"));
}

#[test]
fn defects_by_the_clock() {
    let vector = Vector::spc("c-chart");
    let watch = "
    spc: [{ name: defects, chart: c, defects: { tag: bad }, every: 1min, phase_1: 26 }]";
    let report = replay(watch, &counted(&vector.list("/defects"), 1.0));
    let last = &report["charts"][0]["last"];
    vector.is(&last["location"]["center"], "/c_bar");
    vector.limits(&last["location"], "/limits", vector.number("/tol"));
}

#[test]
fn capability_of_a_known_process() {
    let vector = Vector::spc("capability");
    let [lower, upper, mean, sigma] = ["/lsl", "/usl", "/mean", "/sigma"].map(|path| vector.number(path));
    let watch = format!(
        "
    spc: [{{ name: known, tag: x, chart: i_mr, limits: {{ center: {mean}, sigma: {sigma} }},
             spec_limits: {{ lower: {lower}, upper: {upper} }} }}]"
    );
    let report = replay(&watch, &series("x", &[mean - 1.0, mean + 1.0]));
    let capability = &report["charts"][0]["capability"][0];
    assert_eq!((&capability["window"], &capability["mean"]), (&json!("since_limits"), &json!(mean)));
    vector.is(&capability["cp"], "/cp");
    vector.is(&capability["cpk"], "/cpk");
}

#[test]
fn reviews_label_what_the_machine_decided() {
    let vector = Vector::quality("confusion");
    let watch = "
    inspection:
      trigger: message
      verdict: { tag: verdict, map: { OK: pass, NG: fail } }
      id: { tag: unit }
      review: { tag: says, map: { good: good, bad: bad }, id: { tag: of }, remember: 2000 }";
    let mut readings = Vec::new();
    let mut units = 0;
    for (count, verdict, says) in
        [("/tp", "NG", "bad"), ("/fp", "NG", "good"), ("/tn", "OK", "good"), ("/fn", "OK", "bad")]
    {
        for _ in 0..vector.at(count).as_u64().expect("a count") {
            units += 1;
            let unit = format!("u{units}");
            readings.push(put(units, "unit", unit.as_str()));
            readings.push(put(units, "verdict", verdict));
            readings.push(put(units + 2000, "of", unit));
            readings.push(put(units + 2000, "says", says));
        }
    }
    readings.push(put(units + 2010, "unit", "the next"));
    readings.push(put(units + 2010, "of", "nobody"));
    readings.sort_by_key(|reading| reading["source_time"].to_string());
    let report = replay(watch, &readings);
    let figures = &report["inspections"][0];
    vector.is(&figures["false_reject"]["value"], "/false_reject_rate");
    vector.is(&figures["escape"]["value"], "/escape_rate");
    vector.is(&figures["f1"]["value"], "/f1");
    let good = vector.number("/fp") + vector.number("/tn");
    assert_eq!(figures["false_reject"]["n"], json!(good));
}

/// Inspections with these scores.
fn scores(values: &[f64]) -> Vec<Json> {
    let each = values.iter().enumerate();
    let mut readings: Vec<_> =
        each.flat_map(|(second, score)| [put(second, "x", *score), put(second, "verdict", "OK")]).collect();
    readings.push(put(values.len(), "verdict", "OK"));
    readings
}

#[test]
fn drift_from_a_histogram() {
    let vector = Vector::quality("psi");
    let shares = vector.list("/baseline");
    let watch = format!(
        "
    inspection:
      trigger: message
      verdict: {{ tag: verdict, map: {{ OK: pass }} }}
      score: {{ tag: x, min: 0, max: 3, bins: 3 }}
      baseline: {{ edges: [1, 2], shares: {shares:?} }}"
    );
    let mut values = Vec::new();
    for (bin, share) in [0.5, 1.5, 2.5].into_iter().zip(vector.list("/current")) {
        values.extend((0..10).map(f64::from).take_while(|place| *place + 0.5 < share * 10.0).map(|_| bin));
    }
    assert_eq!(values.len(), 10);
    let report = replay(&watch, &scores(&values));
    let drift = &report["inspections"][0]["drift"][0];
    assert_eq!(drift["n"], 10);
    vector.is(&drift["psi"], "/psi");
}

#[test]
fn drift_from_the_first_scores() {
    let watch = "
    inspection:
      trigger: message
      verdict: { tag: verdict, map: { OK: pass } }
      score: { tag: x, min: 0, max: 10 }
      baseline: { inspections: 20 }";
    for id in ["ks", "ks-ties"] {
        let vector = Vector::quality(id);
        // Five times each: the least that a baseline is learnt from, and the same distribution.
        let mut values = [(); 5].map(|()| vector.list("/a")).concat();
        values.extend([(); 5].map(|()| vector.list("/b")).concat());
        let report = replay(watch, &scores(&values));
        let drift = &report["inspections"][0]["drift"][0];
        assert_eq!(drift["n"], 20, "{id}");
        vector.is(&drift["ks"], "/d");
    }
}

#[test]
fn defects_per_unit() {
    let vector = Vector::quality("dpmo");
    let watch = "
    inspection:
      trigger: message
      verdict: { tag: verdict, map: { OK: pass, NG: fail } }
      defects: { tag: defects }";
    let [defects, units] = ["/defects", "/units"].map(|path| vector.at(path).as_u64().expect("a count"));
    assert_eq!(vector.number("/opportunities"), 6.0, "as the board has them");
    let mut readings = vec![put(0, "product", "board")];
    for unit in 0..=units {
        let second = usize::try_from(unit).expect("small");
        let (verdict, code) = if unit < defects { ("NG", "bridge") } else { ("OK", "") };
        readings.push(put(second, "defects", code));
        readings.push(put(second, "verdict", verdict));
    }
    // The last message is complete when a later one is told.
    let report = replay(watch, &readings);
    let figures = &report["inspections"][0];
    assert_eq!(figures["dpu"]["n"], json!(f64::from(u32::try_from(units).expect("small"))));
    for of in [figures, &figures["products"][0]] {
        vector.is(&of["dpmo"]["value"], "/dpmo");
        assert_eq!(of["dpmo"]["n"], json!(vector.number("/units") * vector.number("/opportunities")));
    }
    vector.is(&figures["sigma_level"], "/sigma_level");
    assert_eq!(figures["products"][0]["product"], "board");
    assert_eq!(report["periods"], json!([]), "no figures of time without `oee:`");
    assert_eq!(figures["defects"], json!({ "bridge": defects }));
}

/// Each product has its own opportunities; of all together those of each unit count, and where some are not known there is no
/// figure of all.
#[test]
fn defects_of_several_products() {
    let watch = "
    inspection:
      verdict: { tag: verdict, map: { OK: pass, NG: fail } }
      defects: { tag: defects }";
    let made = |products: &[(&str, &str)]| {
        let mut readings = Vec::new();
        for (second, (product, code)) in products.iter().chain([&("", "")]).enumerate() {
            readings.push(put(second, "product", *product));
            readings.push(put(second, "defects", *code));
            readings.push(put(second, "verdict", if code.is_empty() { "OK" } else { "NG" }));
        }
        replay(watch, &readings)["inspections"][0].clone()
    };
    let boards = [("board", "bridge,bridge"), ("board", ""), ("frame", "dent"), ("frame", ""), ("frame", "")];
    let figures = made(&boards);
    let of = |value: f64, n: f64| json!({ "value": value, "n": n });
    assert_eq!(figures["dpmo"], of(3.0 / 18.0 * 1e6, 18.0), "three defects in two boards and three frames");
    assert_eq!(figures["ppm"], of(0.4 * 1e6, 5.0));
    let third = 1.0 / 3.0;
    assert_eq!(
        figures["products"],
        json!([
            { "product": "board", "inspections": 2, "dpu": of(1.0, 2.0), "dpmo": of(2.0 / 12.0 * 1e6, 12.0), "ppm": of(0.5e6, 2.0) },
            { "product": "frame", "inspections": 3, "dpu": of(third, 3.0), "dpmo": of(1.0 / 6.0 * 1e6, 6.0), "ppm": of(third * 1e6, 3.0) },
        ])
    );
    // Of a lid nobody knows how many opportunities it has, and `cup` is no product at all.
    let figures = made(&[("board", "bridge"), ("lid", "dent"), ("cup", "")]);
    assert_eq!(figures["dpmo"], json!(null));
    let products: Vec<_> =
        figures["products"].as_array().expect("a list").iter().map(|of| (&of["product"], &of["dpmo"])).collect();
    let (none, known) = (json!(null), of(1.0 / 6.0 * 1e6, 6.0));
    assert_eq!(products, [(&none, &none), (&json!("board"), &known), (&json!("lid"), &none)]);
}

/// The station says how many opportunities there are where products do not.
#[test]
fn opportunities_without_products() {
    let watch = "
    inspection:
      verdict: { tag: verdict, map: { OK: pass, NG: fail } }
      defects: { tag: defects }
      opportunities: 4";
    let mut readings = Vec::new();
    for (second, code) in ["bridge", "", ""].into_iter().enumerate() {
        readings.push(put(second, "defects", code));
        readings.push(put(second, "verdict", if code.is_empty() { "OK" } else { "NG" }));
    }
    let figures = &replay(watch, &readings)["inspections"][0];
    assert_eq!(figures["dpmo"], json!({ "value": 1.0 / 8.0 * 1e6, "n": 8.0 }));
}

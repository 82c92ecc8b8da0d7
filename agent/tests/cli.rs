//! The binary as its users meet it: help, exit codes, messages, signals.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use gemba::forward::{Letter, Letters};
use gemba::spool::{self, Entry, Series, Settings, StoredReading};
use gemba_drivers::{OwnStatus, Reading, Status, TagId, Time, Validity, Value};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value as Json, json};

/// How long anything may take on a busy machine.
const DEADLINE: Duration = Duration::from_secs(60);

fn gemba() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gemba"));
    command.env_remove("GEMBA_LOG").env_remove("GEMBA_LOG_FORMAT");
    command
}

fn run(args: &[&str]) -> Ended {
    Ended::from(gemba().args(args).stdin(Stdio::null()).output().expect("it starts"))
}

/// How a command went.
#[derive(Debug)]
struct Ended {
    code: Option<i32>,
    out: String,
    err: String,
}

impl From<Output> for Ended {
    fn from(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
        Self { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
    }
}

/// A folder with a configuration in it, and whatever else a test puts there.
struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    /// A line of three stations of which none answers, on a free port, with its spool in the folder.
    fn new() -> Self {
        let place = Self { folder: tempfile::tempdir().expect("a folder") };
        place.configure("127.0.0.1:0");
        place
    }

    fn configure(&self, listen: &str) {
        // Nobody serves port 1 (tcpmux).
        let text = [
            ("tcp://127.0.0.1:5020", "tcp://127.0.0.1:1"),
            ("opc.tcp://127.0.0.1:4840", "opc.tcp://127.0.0.1:1"),
            ("mqtt://127.0.0.1:1883", "mqtt://127.0.0.1:1"),
            ("http://127.0.0.1:4318", "http://127.0.0.1:1"),
            ("listen: 127.0.0.1:8080", &format!("listen: {listen}")),
            ("./data/spool", &self.path("spool").display().to_string()),
        ]
        .iter()
        .fold(include_str!("../../config/line.yaml").to_owned(), |text, (from, to)| {
            assert!(text.contains(from), "the reference configuration names {from}");
            text.replace(from, to)
        });
        self.write("line.yaml", text);
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_str().expect("UTF-8").to_owned()
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>) -> String {
        std::fs::write(self.path(name), text).expect("written");
        self.text(name)
    }

    /// Runs a command with this configuration.
    fn run(&self, command: &str, more: &[&str]) -> Ended {
        run(&[&[command, "--config", &self.text("line.yaml")], more].concat())
    }

    /// `gemba replay --format json` of these lines.
    fn replayed(&self, lines: &str, more: &[&str]) -> Json {
        let readings = self.write("readings.jsonl", lines);
        let ended = self.run("replay", &[&["--format", "json", &readings], more].concat());
        assert_eq!((ended.code, ended.err.as_str()), (Some(0), ""));
        serde_json::from_str(&ended.out).expect("JSON")
    }
}

/// A running agent; killed at the drop.
struct Agent {
    child: Child,
    logs: Receiver<Json>,
    page: SocketAddr,
}

impl Agent {
    /// Starts `gemba run` and waits until it says where its page is.
    fn start(place: &Place) -> Self {
        let mut child = gemba()
            .args(["run", "--log-format", "json", "--config", &place.text("line.yaml")])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts");
        let lines = BufReader::new(child.stderr.take().expect("piped")).lines();
        let (sender, logs) = channel();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let line = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let mut agent = Self { child, logs, page: ([0, 0, 0, 0], 0).into() };
        let running = agent.until("running");
        let page = running["page"].as_str().expect("where the page is");
        let address = page.strip_prefix("http://").and_then(|rest| rest.strip_suffix("/health"));
        agent.page = address.and_then(|address| address.parse().ok()).expect("an address");
        agent
    }

    /// The first log line with this message. Every line on the way must be an object of the same form.
    fn until(&self, message: &str) -> Json {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let line = self.logs.recv_timeout(left).unwrap_or_else(|error| panic!("no log line `{message}`: {error}"));
            assert!(line["timestamp"].is_string() && line["level"].is_string(), "{line}");
            if line["message"] == message {
                return line;
            }
        }
    }

    fn get(&self, path: &str) -> (String, Json) {
        let mut socket = TcpStream::connect(self.page).expect("it listens");
        write!(socket, "GET {path} HTTP/1.1\r\nhost: gateway\r\nconnection: close\r\n\r\n").expect("sent");
        let mut answer = String::new();
        socket.read_to_string(&mut answer).expect("an answer");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
        let status = head.lines().next().unwrap_or_default().to_owned();
        (status, serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {body}")))
    }

    /// Sends `signal` and waits for the end; then the exit code.
    fn end(mut self, signal: Signal) -> Option<i32> {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).expect("it is ours");
        // The log ends when the process does.
        let deadline = Instant::now() + DEADLINE;
        while self.logs.recv_timeout(deadline.saturating_duration_since(Instant::now())).is_ok() {}
        assert!(Instant::now() < deadline, "it does not end");
        self.child.wait().expect("it has ended").code()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn every_help_teaches_and_tells_the_exit_codes() {
    for (command, words) in [
        (
            &[][..],
            &["run", "check", "browse", "replay", "explain", "enter", "schema", "spool", "trust", "GPIO", "OTLP"][..],
        ),
        (&["run"], &["--config <FILE>", "folder", "--log-format", "--log <FILTER>", "SIGTERM", "gemba run --config"]),
        (
            &["check"],
            &[
                "--config <FILE>",
                "folder",
                "file, line, column and path",
                "gemba check --config",
                "--probe",
                "listened",
            ],
        ),
        (&["browse"], &["--config <FILE>", "--filter <GLOB>", "--listen", "--most", "GPIO", "gemba browse --config"]),
        (
            &["replay"],
            &[
                "--config <FILE>",
                "--format",
                "table",
                "json",
                "--until",
                "RFC3339",
                "standard input",
                "\"source_time\":",
            ],
        ),
        (
            &["explain"],
            &[
                "--config <FILE>",
                "--station",
                "today/early",
                "--kpi",
                "--at",
                "spool.keep",
                "/explain?station=",
                "by hand",
            ],
        ),
        (
            &["enter"],
            &[
                "reason",
                "work",
                "target",
                "rejects",
                "anomaly",
                "list",
                "http.entries: true",
                "-10m",
                "gemba enter --config",
            ],
        ),
        (
            &["enter", "reason"],
            &["--station <NAME>", "--by <NAME>", "--from <TIME>", "--code <CODE>", "GEMBA_BY", "--config"],
        ),
        (&["enter", "rejects"], &["--count <COUNT>", "--code <CODE>", "negative", "--at <TIME>"]),
        (&["enter", "list"], &["newest first", "gemba replay --entries", "--format"]),
        (&["schema"], &["JSON Schema", "gemba schema >"]),
        (&["trust"], &["list", "show", "accept", "reject", "renew", "thumbprint", "gemba trust accept --config"]),
        (&["trust", "accept"], &["--pki", "--config"]),
        (&["spool"], &["status", "verify", "export", "dead-letter"]),
        (&["spool", "dead-letter"], &["list", "export", "retry", "delete", "16 MiB", "--all"]),
        (&["spool", "status"], &["--path", "--config", "--format", "lane by lane"]),
        (&["spool", "verify"], &["--path", "--config", "--format", "0 is sound", "TMPDIR", "Nothing is changed"]),
        (
            &["spool", "export"],
            &[
                "--lane",
                "--format",
                "--from",
                "--to",
                "--station",
                "JSON lines",
                "RFC 4180",
                "gemba replay",
                "received_time",
            ],
        ),
    ] {
        let ended = run(&[command, &["--help"]].concat());
        assert_eq!((ended.code, ended.err.as_str()), (Some(0), ""), "{command:?}");
        for word in words {
            assert!(ended.out.contains(word), "{command:?} says nothing of {word}: {}", ended.out);
        }
        let codes = "Exit codes: 0 fine, 1 failure at run time, 2 wrong usage or configuration.";
        assert!(ended.out.trim_end().ends_with(codes), "{command:?}: {}", ended.out);
    }
    let version = run(&["--version"]);
    assert_eq!((version.code, version.out.trim_end()), (Some(0), concat!("gemba ", env!("CARGO_PKG_VERSION"))));
}

#[test]
fn wrong_usage_is_2_and_says_what_would_be_right() {
    for (args, word) in [
        (&[][..], "Usage: gemba"),
        (&["rum"], "'run'"),
        (&["run"], "--config <FILE>"),
        (&["check"], "--config <FILE>"),
        (&["check", "--confg", "x"], "'--config'"),
        (&["explain", "--config", "x"], "--station"),
        (&["explain", "--config", "x", "--station", "a", "--shift", "early"], "today/early"),
        (&["explain", "--config", "x", "--station", "a", "--shift", "current", "--lot", "A"], "cannot be used with"),
        (&["replay", "--config", "x"], "READINGS.jsonl"),
        (&["replay", "--config", "x", "y", "--format", "xml"], "table, json"),
        (&["replay", "--config", "x", "y", "--until", "yesterday"], "--until"),
        (&["run", "--config", "x", "--log", "=="], "--log"),
        (&["run", "--config", "x", "--log-format", "xml"], "human, json"),
        (&["spool", "status"], "--path"),
        (&["spool", "verify"], "--path"),
        (&["spool", "export", "--path", "x", "--entries", "--lane", "kpis"], "cannot be used with"),
        (&["spool", "export", "--path", "x", "--lane", "model"], "readings"),
        (&["spool", "dead-letter", "delete", "--path", "x"], "--all"),
        (&["spool", "dead-letter", "retry", "--config", "x", "--all", "3"], "cannot be used with"),
        (&["trust", "accept", "--pki", "x"], "THUMBPRINT"),
        (&["schema", "x"], "unexpected argument"),
    ] {
        let ended = run(args);
        assert_eq!((ended.code, ended.out.as_str()), (Some(2), ""), "{args:?}");
        assert!(ended.err.contains(word), "{args:?} says nothing of {word}: {}", ended.err);
    }
}

#[test]
fn check_takes_a_file_or_a_folder() {
    let place = Place::new();
    let file = place.run("check", &[]);
    assert_eq!((file.code, file.err.as_str()), (Some(0), ""));
    assert!(file.out.starts_with(&format!("{} is fine: 3 stations, 11 tags, 3 links\n", place.text("line.yaml"))));
    assert!(["printer-1", "Modbus", "early, late, night (Europe/Berlin)"].iter().all(|word| file.out.contains(word)));

    let folder = run(&["check", "--config", place.folder.path().to_str().expect("UTF-8")]);
    assert_eq!((folder.code, folder.err.as_str()), (Some(0), ""));
    place.write("more.yaml", "site: fab-3\n");
    let twice = run(&["check", "--config", place.folder.path().to_str().expect("UTF-8")]);
    assert_eq!((twice.code, twice.out.as_str()), (Some(2), ""));
    assert!(twice.err.contains(&format!("{}:1:7: site: is already set at", place.text("more.yaml"))), "{}", twice.err);
}

/// The same configuration, the same words and the same code, whatever command reads it.
#[test]
fn a_wrong_configuration_is_2_with_every_mistake_in_its_place() {
    let place = Place::new();
    place.write(
        "line.yaml",
        include_str!("../../config/line.yaml").replace("poll:", "pol:").replace("unit: 1", "unit: 0"),
    );
    let expected =
        [("pol: unknown key; did you mean `poll`?", "stations[0].source"), ("stations[0].source.unit: ", "255")];
    let readings = place.write("readings.jsonl", "");
    for (command, more) in [("check", &[][..]), ("run", &[]), ("replay", &[readings.as_str()])] {
        let ended = place.run(command, more);
        assert_eq!((ended.code, ended.out.as_str()), (Some(2), ""), "{command}");
        assert_eq!(ended.err.lines().count(), 2, "{command}: {}", ended.err);
        for (message, also) in expected {
            let line = ended.err.lines().find(|line| line.contains(message) && line.contains(also));
            let line = line.unwrap_or_else(|| panic!("{command} says nothing of {message}: {}", ended.err));
            assert!(line.starts_with(&format!("{}:", place.text("line.yaml"))), "{line}");
        }
    }

    place.write("line.yaml", "site: [}");
    for command in ["check", "run"] {
        let broken = place.run(command, &[]);
        assert_eq!(broken.code, Some(2));
        assert!(broken.err.starts_with(&format!("{}:1:", place.text("line.yaml"))), "{}", broken.err);
    }
    std::fs::remove_file(place.path("line.yaml")).expect("it was there");
    for command in ["check", "run"] {
        let missing = place.run(command, &[]);
        assert_eq!(missing.code, Some(2));
        let expected = format!("{}: cannot be read: No such file or directory (os error 2)\n", place.text("line.yaml"));
        assert_eq!(missing.err, expected);
    }
}

#[test]
fn the_schema_is_one_and_takes_the_reference_line() {
    let ended = run(&["schema"]);
    assert_eq!((ended.code, ended.err.as_str()), (Some(0), ""));
    let schema: Json = serde_json::from_str(&ended.out).expect("JSON");
    jsonschema::meta::validate(&schema).expect("a schema");
    let validator = jsonschema::validator_for(&schema).expect("a schema");
    let yaml = |text: &str| {
        // As YAML 1.2 has it: `N` is the newton.
        let strict = serde_saphyr::options! { strict_booleans: true };
        serde_saphyr::from_str_with_options::<Json>(text, strict).expect("YAML")
    };
    let line = yaml(include_str!("../../config/line.yaml"));
    let errors: Vec<_> = validator.iter_errors(&line).map(|error| error.to_string()).collect();
    assert!(errors.is_empty(), "{errors:?}");
    assert!(!validator.is_valid(&yaml("site: s\nline: l\ntimezone: UTC\nstation: []\n")));
}

/// `printer-1` at 06:00 in Berlin and after, as lines.
const READINGS: &str = r#"{"station":"printer-1","tag":"state","value":1,"source_time":"2026-03-02T05:00:00Z"}
{"station":"printer-1","tag":"total","value":100,"source_time":"2026-03-02T05:00:00Z"}
{"station":"printer-1","tag":"reject","value":0,"source_time":"2026-03-02T05:00:00Z"}

{"station":"printer-1","tag":"total","value":125,"validity":"good","source_time":"2026-03-02T05:01:00Z","received_time":"2026-03-02T05:01:00.2Z"}
{"station":"printer-1","tag":"reject","value":5,"validity":"uncertain","source_time":"2026-03-02T05:01:00Z"}
{"station":"printer-1","tag":"state","value":null,"validity":"bad","source_time":"2026-03-02T05:01:20Z"}
"#;

#[test]
fn replay_prints_json_of_the_contract() {
    let place = Place::new();
    let report = place.replayed(READINGS, &["--until", "2026-03-02T05:01:40Z"]);
    let mut period = report["periods"][0].clone();
    let kpi = period["kpi"].take();
    assert_eq!(
        period,
        json!({"station": "printer-1", "shift": "early", "from": "2026-03-02T05:00:00Z", "to": "2026-03-02T05:01:40Z",
               "closed": false, "revision": 0, "kpi": null, "states": {"producing": 80.0, "unknown": 20.0},
               "reasons": {}, "defects": {}})
    );
    assert_eq!((report["periods"].as_array().map(Vec::len), &report["losses"]), (Some(1), &json!([])));
    // Printed at 1.2 s a part.
    for (figure, value) in [
        ("since", json!("2026-03-02T05:00:00Z")),
        ("availability", json!(1.0)),
        ("performance", json!(25.0 * 1.2 / 80.0)),
        ("quality", json!(0.8)),
        ("oee", json!(25.0 * 1.2 / 80.0 * 0.8)),
        ("coverage", json!(0.8)),
        ("total", json!(25)),
        ("good", json!(20)),
        ("reject", json!(5)),
    ] {
        assert_eq!(kpi[figure], value, "{figure}");
    }
    // Without --until the last instant seen is the end.
    assert_eq!(place.replayed(READINGS, &[])["periods"][0]["to"], "2026-03-02T05:01:20Z");
}

#[test]
fn replay_prints_a_table_and_reads_standard_input() {
    let place = Place::new();
    let mut child = gemba()
        .args(["replay", "--config", &place.text("line.yaml"), "--until", "2026-03-02T15:00:00Z", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    child.stdin.take().expect("piped").write_all(READINGS.as_bytes()).expect("it reads");
    let ended = Ended::from(child.wait_with_output().expect("it ends"));
    assert_eq!((ended.code, ended.err.as_str()), (Some(0), ""));
    let row = |word: &str| ended.out.lines().find(|line| line.contains(word)).expect("a row").to_owned();
    let early = row("early");
    for word in ["printer-1", "2026-03-02T05:00:00Z", "2026-03-02T13:00:00Z", "80.0 %", "25", "20"] {
        assert!(early.contains(word), "{word}: {early}");
    }
    assert!(row("late").contains("2026-03-02T15:00:00Z (open)"), "{}", ended.out);
    assert!(["OEE", "coverage", "total"].iter().all(|word| row("station").contains(word)));
}

#[test]
fn a_line_that_is_no_reading_is_named_by_file_and_line() {
    let place = Place::new();
    let good = READINGS.lines().next().expect("a line");
    for (line, message) in [
        ("{", "column 1: EOF while parsing an object"),
        ("[1]", "column 2: invalid"),
        (r#"{"station":"printer-1","tag":"state","value":1}"#, "missing field `source_time`"),
        (r#"{"station":"printer-1","tag":"state","value":1,"source_time":"today"}"#, "column 69: "),
        (
            r#"{"station":"printer-1","tag":"state","value":1,"validity":"fine","source_time":"2026-03-02T05:00:00Z"}"#,
            "unknown variant `fine`, expected one of `good`, `uncertain`, `bad`",
        ),
        (
            r#"{"station":"printer-1","tag":"state","value":[1],"source_time":"2026-03-02T05:00:00Z"}"#,
            "`value` is a number, true, false, text or null, not [1]",
        ),
        (
            r#"{"station":"printer-1","tag":"state","vlaue":1,"source_time":"2026-03-02T05:00:00Z"}"#,
            "unknown field `vlaue`",
        ),
    ] {
        let readings = place.write("readings.jsonl", format!("{good}\n\n{line}\n{good}\n"));
        let ended = place.run("replay", &[&readings]);
        assert_eq!((ended.code, ended.out.as_str()), (Some(1), ""), "{line}");
        assert!(ended.err.starts_with(&format!("error: {readings}:3: ")), "{}", ended.err);
        assert!(ended.err.contains(message) && !ended.err.contains("at line 1"), "{line}: {}", ended.err);
    }
    let readings = place.write("readings.jsonl", [good.as_bytes(), b"\n\xff\n"].concat());
    let latin = place.run("replay", &[&readings]);
    assert_eq!(
        (latin.code, latin.err),
        (Some(1), format!("error: {readings}:2: stream did not contain valid UTF-8\n"))
    );
    let missing = place.run("replay", &[&place.text("none.jsonl")]);
    assert_eq!(missing.code, Some(1));
    assert_eq!(missing.err, format!("error: {}: No such file or directory (os error 2)\n", place.text("none.jsonl")));
}

#[test]
fn readings_of_strangers_are_left_out_and_counted() {
    let place = Place::new();
    let strange = READINGS.replace("\"printer-1\"", "\"printer-9\"").replace("\"reject\"", "\"scrap\"");
    let ours = READINGS.replace("\"reject\"", "\"scrap\"");
    let readings = place.write("readings.jsonl", format!("{strange}{ours}"));
    let ended = place.run("replay", &["--format", "json", &readings]);
    assert_eq!(ended.code, Some(0));
    let warnings: Vec<_> = ended.err.lines().collect();
    assert_eq!(warnings.len(), 4, "{}", ended.err);
    for (station, tag, count) in [("printer-1", "scrap", 2), ("printer-9", "scrap", 2), ("printer-9", "state", 2)] {
        let expected = format!(
            "warning: {count} readings of `{tag}` at station `{station}`, which the configuration lacks, left out"
        );
        assert!(warnings.contains(&expected.as_str()), "{}", ended.err);
    }
    let report: Json = serde_json::from_str(&ended.out).expect("JSON");
    assert_eq!(report["periods"][0]["kpi"]["total"], 25);
    assert_eq!(report["periods"].as_array().map(Vec::len), Some(1), "of the one station that is ours");

    let nothing = place.replayed("", &[]);
    assert_eq!((&nothing["periods"], &nothing["losses"]), (&json!([]), &json!([])));
}

#[test]
fn dead_letters_are_listed_exported_and_deleted() {
    let place = Place::new();
    let letters = Letters::of(&place.path("spool"));
    let letter = |why: &str| Letter {
        refused: Time(9_000_000_000),
        signal: spool::Signal::Logs,
        items: 2,
        from: Time(0),
        to: Time(1_000_000_000),
        why: why.to_owned(),
    };
    let spool = place.text("spool");
    let command = |args: &[&str]| run(&[&["spool", "dead-letter", args[0], "--path", &spool], &args[1..]].concat());
    let none = command(&["list"]);
    assert_eq!((none.code, none.out.trim_end()), (Some(0), "no dead letters"));

    for why in ["400 first", "400 second"] {
        letters.keep(&letter(why), b"\x0a\x00").expect("kept");
    }
    let listed = command(&["list"]).out;
    assert_eq!(listed.lines().count(), 2);
    assert!(listed.contains("2  logs") && listed.contains("400 second"), "{listed}");
    let file = place.text("letter.binpb");
    assert_eq!(command(&["export", "1", "--output", &file]).code, Some(0));
    assert_eq!(std::fs::read(&file).expect("written"), b"\x0a\x00");

    assert_eq!(command(&["delete", "1"]).code, Some(0));
    let gone = command(&["export", "1"]);
    assert_eq!(gone.code, Some(1));
    assert!(gone.err.contains("dead letter 1") && gone.err.contains("dead-letter list"), "{}", gone.err);
    assert_eq!(command(&["delete", "--all"]).code, Some(0));
    assert!(letters.list().expect("readable").is_empty());
}

/// What the spool holds, exported and replayed.
#[test]
fn an_export_is_replayed_as_it_was_recorded() {
    let place = Place::new();
    let second = |second: i64| Time::from_millis((1_772_427_600 + second) * 1000); // 2026-03-02T05:00:00Z
    let series = ["state", "total", "reject"].map(|tag| Series {
        station: "printer-1".into(),
        tag: tag.into(),
        unit: None,
        metric: None,
        text: false,
    });
    let settings = Settings {
        path: place.path("spool"),
        max_size: 64 << 20,
        keep_free: 0,
        keep: Duration::ZERO,
        journal_size: spool::JOURNAL_SIZE,
    };
    {
        let mut opened = spool::open(settings, &series).expect("a spool");
        let mut put = |tag: usize, reading: Reading| {
            opened.writer.append(&Entry::Readings(vec![StoredReading::new(opened.ids[tag], reading)]));
        };
        let good = |value: i64, at| Reading::good(TagId(0), Value::Int(value), second(at), second(at));
        put(0, good(1, 0));
        put(1, good(100, 0));
        put(2, good(0, 0));
        put(1, good(150, 60));
        let doubtful = Validity::Uncertain(Status::Opcua(0x4090_0000));
        put(2, Reading { validity: doubtful, ..good(5, 60) });
        for tag in 0..3 {
            put(tag, Reading::bad(TagId(0), Status::Own(OwnStatus::LinkLost), second(60), second(65)));
        }
        put(0, good(5, 80));
        put(1, good(160, 80));
        put(2, Reading::bad(TagId(0), Status::Opcua(0x8034_0000), second(80), second(80)));
        put(0, good(5, 100));
        opened.writer.commit(Time::now()).expect("it is durable");
    }

    let spool = place.text("spool");
    let export = run(&["spool", "export", "--path", &spool]);
    assert_eq!((export.code, export.err.as_str()), (Some(0), ""));
    let lines: Vec<Json> = export.out.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(lines.len(), 12);
    let status = |line: &Json| (line["validity"].clone(), line["status"].clone());
    assert_eq!(status(&lines[4]), ("uncertain".into(), "UncertainLastUsableValue".into()));
    assert_eq!(status(&lines[10]), ("bad".into(), "BadNodeIdUnknown".into()));

    let report = place.replayed(&export.out, &[]);
    let [period] = report["periods"].as_array().expect("a list").as_slice() else { panic!("{report}") };
    assert_eq!(period["states"], json!({"producing": 60.0, "unknown": 20.0, "down": 20.0}));
    let kpi = &period["kpi"];
    assert_eq!((&kpi["total"], &kpi["reject"], &kpi["unattributed"]), (&json!(60), &json!(5), &json!(10)));
    assert_eq!((&kpi["coverage"], &kpi["availability"]), (&json!(0.8), &json!(0.75)));
}

#[test]
fn run_stops_on_either_signal_with_0_and_serves_until_then() {
    for signal in [Signal::TERM, Signal::INT] {
        let place = Place::new();
        let agent = Agent::start(&place);
        let deadline = Instant::now() + DEADLINE;
        // None of the stations answers, and each says so; the agent is well all the same.
        let health = loop {
            let (status, health) = agent.get("/health");
            assert_eq!(status, "HTTP/1.1 200 OK");
            let stations = health["stations"].as_array().expect("a list");
            if stations.iter().all(|station| station["link"] == "disconnected") {
                break health;
            }
            assert!(Instant::now() < deadline, "{health}");
            std::thread::yield_now();
        };
        assert_eq!((&health["status"], &health["stations"][0]["name"]), (&json!("degraded"), &json!("printer-1")));
        assert!(health["stations"].as_array().expect("a list").iter().all(|station| station["link_error"].is_string()));
        assert_eq!(agent.get("/health/live").0, "HTTP/1.1 200 OK");
        assert_eq!(agent.end(signal), Some(0), "{signal:?}");
        assert_eq!(run(&["spool", "status", "--path", &place.text("spool")]).code, Some(0), "it let go of its spool");
    }
}

#[test]
#[cfg(target_env = "gnu")]
fn run_has_one_heap_under_the_process_id_it_was_started_with() {
    let place = Place::new();
    let agent = Agent::start(&place);
    let environment = std::fs::read(format!("/proc/{}/environ", agent.child.id())).expect("it lives");
    let heaps = |text: &[u8]| text.split(|&byte| byte == 0).any(|entry| entry == b"MALLOC_ARENA_MAX=1");
    assert!(heaps(&environment), "{}", String::from_utf8_lossy(&environment));
    let words = std::fs::read(format!("/proc/{}/cmdline", agent.child.id())).expect("it lives");
    assert!(words.split(|&byte| byte == 0).any(|word| word == b"--log-format"), "the arguments are as they were");
}

#[test]
fn log_lines_for_machines_are_json_to_the_end() {
    let place = Place::new();
    let agent = Agent::start(&place);
    kill_process(Pid::from_child(&agent.child), Signal::TERM).expect("it is ours");
    assert_eq!(agent.until("SIGTERM")["level"], "INFO");
    agent.until("stopping");
    agent.until("stopped");
}

#[test]
fn a_port_in_use_is_1_with_the_way_out() {
    let held = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = held.local_addr().expect("it listens").to_string();
    let place = Place::new();
    place.configure(&address);
    let ended = place.run("run", &[]);
    assert_eq!((ended.code, ended.out.as_str()), (Some(1), ""));
    let expected = format!("{address} is in use by another program; set http.listen to another port");
    assert!(ended.err.lines().any(|line| line == format!("error: {expected}")), "{}", ended.err);
    assert!(!place.path("spool").exists(), "nothing was begun");
}

#[test]
fn a_spool_that_cannot_be_is_1_and_named() {
    let place = Place::new();
    let spool = place.write("spool", "a file in the way");
    let ended = place.run("run", &[]);
    assert_eq!((ended.code, ended.out.as_str()), (Some(1), ""));
    let error = ended.err.lines().find(|line| line.starts_with("error: ")).expect("an error").to_owned();
    assert!(error.contains("spool.path") && error.contains(&spool) && error.contains("not a folder"), "{error}");
    assert_eq!(std::fs::read_to_string(place.path("spool")).expect("it stands"), "a file in the way");

    let place = Place::new();
    place.write("file", "");
    let text = std::fs::read_to_string(place.path("line.yaml")).expect("it is there");
    place.write("line.yaml", text.replace(&place.text("spool"), &place.text("file/spool")));
    let below = place.run("run", &[]);
    assert_eq!(below.code, Some(1));
    assert!(below.err.contains("spool.path") && below.err.contains(&place.text("file/spool")), "{}", below.err);
}

#[test]
fn a_spool_in_use_is_1_and_says_by_whom() {
    let place = Place::new();
    let agent = Agent::start(&place);
    let second = place.run("run", &[]);
    assert_eq!(second.code, Some(1));
    assert!(second.err.contains("in use by another gemba"), "{}", second.err);
    assert_eq!(agent.get("/health/live").0, "HTTP/1.1 200 OK", "the first is not disturbed");
    assert!(Path::new(&place.text("spool")).is_dir());
    assert_eq!(agent.end(Signal::TERM), Some(0));
}

#[test]
fn a_spool_that_is_not_there_is_1() {
    let place = Place::new();
    for command in ["status", "verify", "export"] {
        let ended = run(&["spool", command, "--path", &place.text("none")]);
        assert_eq!((ended.code, ended.out.as_str()), (Some(1), ""), "{command}");
        assert!(ended.err.starts_with("error: ") && ended.err.contains(&place.text("none")), "{}", ended.err);
    }
}

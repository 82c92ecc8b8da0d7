//! `gemba demo`: the simulated line, gemba as it is, and the comparison of both.

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use gemba::demo::{Fault, News, Options, Outcome, run};
use gemba::telemetry::outbox::Outbox;
use rustix::process::{Pid, Signal, kill_process};
use tokio_util::sync::CancellationToken;

const GEMBA: &str = env!("CARGO_BIN_EXE_gemba-to-kill");
/// How long a program may take, on a busy machine.
const DEADLINE: Duration = Duration::from_secs(120);

/// A short demo with a page on any port; some minutes of the line in seconds.
struct Demo {
    options: Options,
    folder: tempfile::TempDir,
}

impl Demo {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let options = Options {
            speed: 20.0,
            seed: 4,
            duration: Some(Duration::from_secs(6)),
            listen: ([127, 0, 0, 1], 0).into(),
            or_any_port: false,
            folder: folder.path().to_owned(),
            fault: None,
        };
        Self { options, folder }
    }

    fn with(self, fault: Fault) -> Self {
        Self { options: Options { fault: Some(fault), ..self.options }, ..self }
    }

    async fn run(&self) -> (anyhow::Result<Outcome>, Vec<News>) {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut told = Vec::new();
        let outcome = Box::pin(run(&self.options, Outbox::default(), CancellationToken::new(), |news| {
            told.push(news);
            Ok(())
        }));
        let outcome = outcome.await;
        (outcome, told)
    }

    async fn outcome(&self) -> Outcome {
        self.run().await.0.unwrap_or_else(|error| panic!("{error:#}"))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn gemba_says_what_the_machines_did() {
    let demo = Demo::new();
    let (outcome, told) = demo.run().await;
    let outcome = outcome.unwrap_or_else(|error| panic!("{error:#}"));
    assert!(outcome.agrees(), "{outcome}");
    assert_eq!(outcome.readings.losses, [], "{outcome}");
    assert_eq!(outcome.stations.len(), 3);
    for station in &outcome.stations {
        let figure = |name| station.figures.iter().find(|figure| figure.name == name).and_then(|figure| figure.seen);
        assert!(figure("total").is_some_and(|total| total > 20.0), "parts were made: {outcome}");
        assert!(figure("availability").is_some_and(|share| share > 0.0), "and it ran: {outcome}");
    }
    let readings = &outcome.readings;
    assert!(readings.points > 300 && readings.text_changes > 40, "{outcome}");
    assert_eq!((readings.taken.numbers, readings.repeated), (readings.points, 0), "{outcome}");
    assert!(told.iter().any(|news| matches!(news, News::Progress(progress) if progress.readings_rate > 0.0)));
    let page = told.iter().find_map(|news| if let News::Page { url, .. } = news { Some(url.as_str()) } else { None });
    assert!(page.is_some_and(|url| url.starts_with("http://127.0.0.1:") && url.ends_with("/health")), "{page:?}");
    let configuration = std::fs::read_to_string(demo.folder.path().join("line.yaml")).expect("what it ran");
    assert!(gemba::config::Config::from_str("line.yaml", &configuration).is_ok(), "{configuration}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_ideal_cycle_time_is_found() {
    let outcome = Demo::new().with(Fault::IdealCycleTime).outcome().await;
    assert!(!outcome.agrees(), "{outcome}");
    let wrong: Vec<_> = outcome
        .stations
        .iter()
        .flat_map(|station| station.figures.iter().filter(|figure| !figure.agrees()).map(|figure| figure.name))
        .collect();
    assert_eq!(wrong, ["OEE", "performance"].repeat(3), "and nothing else: {outcome}");
    assert_eq!(outcome.disagreements().len(), 6, "{outcome}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_upstream_forgets_is_found() {
    let outcome = Demo::new().with(Fault::Swallow(5)).outcome().await;
    let disagreements = outcome.disagreements();
    assert!(disagreements.iter().any(|sentence| sentence.contains("numbers were taken in")), "{outcome}");
    assert!(outcome.readings.points < outcome.readings.taken.numbers, "{outcome}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_is_taken_is_told_and_another_one_serves() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let wanted = taken.local_addr().expect("bound");
    let mut demo = Demo::new();
    demo.options =
        Options { listen: wanted, or_any_port: true, duration: Some(Duration::from_millis(500)), ..demo.options };
    let (outcome, told) = demo.run().await;
    let outcome = outcome.unwrap_or_else(|error| panic!("{error:#}"));
    assert!(outcome.agrees(), "{outcome}");
    assert!(matches!(told[0], News::PortTaken(port) if port == wanted), "{told:?}");
    assert!(matches!(&told[1], News::Page { address, .. } if *address != wanted), "{told:?}");

    // Asked for by name, nothing else will do.
    demo.options.or_any_port = false;
    let (outcome, told) = demo.run().await;
    let error = outcome.expect_err("the port is taken").to_string();
    assert!(error.contains(&wanted.to_string()) && error.contains("another port"), "{error}");
    assert!(told.is_empty(), "{told:?}");
}

fn gemba(args: &[&str]) -> Command {
    let mut command = Command::new(GEMBA);
    command.arg("demo").args(args).env_remove("GEMBA_LOG").env_remove("GEMBA_LOG_FORMAT").stdin(Stdio::null());
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}

#[test]
fn the_command_prints_the_page_the_progress_and_the_summary() {
    let folder = tempfile::tempdir().expect("a folder");
    let args = ["--speed", "20", "--seed", "3", "--duration", "6s", "--listen", "127.0.0.1:0"];
    let Output { status, stdout, stderr } = gemba(&args).env("TMPDIR", folder.path()).output().expect("it starts");
    let (out, err) = (text(&stdout), text(&stderr));
    assert_eq!((status.code(), err.as_str()), (Some(0), ""), "{out}");
    for part in ["http://127.0.0.1:", "/health", "ctrl-C", "printer-1", "aoi-1", "oven-1", "They agree", "lost      0"]
    {
        assert!(out.contains(part), "{part}: {out}");
    }
    assert!(out.lines().any(|line| line.starts_with(" 0:05  ") && line.len() <= 80), "{out}");
    let left: Vec<_> = std::fs::read_dir(folder.path()).expect("a folder").collect();
    assert!(left.is_empty(), "nothing stays on the disk: {left:?}");
}

/// A running demo; killed at the drop.
struct Running {
    child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
    said: Vec<String>,
}

impl Running {
    fn start(args: &[&str]) -> Self {
        let mut child = gemba(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        Self { child, lines, said: Vec::new() }
    }

    fn until(&mut self, what: &str) {
        for line in self.lines.by_ref() {
            let line = line.expect("UTF-8");
            let found = line.contains(what);
            self.said.push(line);
            if found {
                return;
            }
        }
        panic!("it ended before it said {what}: {:#?}", self.said);
    }

    fn signal(&self, signal: Signal) {
        let id = Pid::from_raw(i32::try_from(self.child.id()).expect("a process id")).expect("above zero");
        kill_process(id, signal).expect("it runs");
    }

    /// The exit code and what it still had to say.
    fn ended(mut self) -> (Option<i32>, String) {
        let deadline = Instant::now() + DEADLINE;
        self.said.extend(self.lines.by_ref().map_while(Result::ok));
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait().expect("a child") {
                return (status.code(), self.said.join("\n"));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("it does not end: {:#?}", self.said);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_signal_in_the_middle_ends_it_with_a_summary() {
    for signal in [Signal::INT, Signal::TERM] {
        let mut demo = Running::start(&["--speed", "20", "--listen", "127.0.0.1:0"]);
        demo.until("the machines start");
        demo.until("0:05");
        demo.signal(signal);
        let (code, said) = demo.ended();
        assert_eq!(code, Some(0), "{said}");
        assert!(said.contains("They agree"), "{said}");
    }
}

/// As `gemba demo | head -1` does. Nothing was compared, so it is no success.
#[test]
fn a_reader_that_hangs_up_ends_it_without_a_word() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut command = gemba(&["--duration", "1min", "--listen", "127.0.0.1:0"]);
    command.env("TMPDIR", folder.path()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("it starts");
    drop(child.stdout.take());
    let Output { status, stderr, .. } = child.wait_with_output().expect("a child");
    assert_eq!((status.code(), text(&stderr).as_str()), (Some(1), ""));
    assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 0, "nothing stays on the disk");
}

#[test]
fn wrong_usage_is_told_from_failure() {
    for args in [
        ["--speed", "0"],
        ["--speed", "1000"],
        ["--speed", "fast"],
        ["--seed", "-1"],
        ["--duration", "10"],
        ["--duration", "0s"],
        ["--listen", "8080"],
        ["--log", "gemba=louder"],
    ] {
        let Output { status, stderr, .. } = gemba(&args).output().expect("it starts");
        assert_eq!(status.code(), Some(2), "{args:?}: {}", text(&stderr));
    }
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address: SocketAddr = taken.local_addr().expect("bound");
    let Output { status, stderr, .. } = gemba(&["--listen", &address.to_string()]).output().expect("it starts");
    let err = text(&stderr);
    assert_eq!(status.code(), Some(1), "{err}");
    assert!(err.contains(&address.to_string()) && err.contains("another port"), "{err}");
}

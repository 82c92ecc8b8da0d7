//! `gemba enter`.

mod kinds;
mod when;

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, Subcommand, ValueEnum};
use gemba_drivers::Time;
use reqwest::{Client, StatusCode, header, redirect};
use serde_json::Value as Json;

use self::kinds::{Anomaly, Reason, Rejects, Target, Work};
use super::Misuse;
use super::service::briefly;
use crate::config::Config;

/// Tell a running agent what no tag does: why it stood, what is worked on, rejects
///
/// The agent has to run, with `http.entries: true` in its configuration. It stores what it is told before it says so, and
/// applies it by the time that it speaks of; a shift that has closed is told again. Nothing is overwritten: of two entries
/// that contradict each other the later one counts, so a mistake is corrected by another entry.
///
/// Times are RFC 3339 (2026-03-02T06:20:00Z), the clock on the plant's wall (06:20 is today's, also yesterday/22:40), a while
/// ago (-10m, -90s, -2h), or `now`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Enter {
    /// The agent's configuration: YAML file, or a folder whose *.yaml files are merged. The agent is asked at its http.listen
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = r"Examples:
  gemba enter --config line.yaml reason --station printer-1 --by anna --from 06:20 --to 06:30 --code feeder-jam
  gemba enter --config line.yaml work --station printer-1 --by anna --at -10m --product A --lot 4711 --no-order
  gemba enter --config line.yaml target --station printer-1 --by anna --takt 45s
  gemba enter --config line.yaml rejects --station printer-1 --by anna --count 10 --code scratch
  gemba enter --config line.yaml anomaly --by anna oven-1/zone1/high@2026-03-02T06:00:00Z dismissed
  gemba enter --config line.yaml list";

#[derive(Debug, Subcommand)]
enum Command {
    Reason(Reason),
    Work(Work),
    Target(Target),
    Rejects(Rejects),
    Anomaly(Anomaly),
    /// List the last that people told, newest first
    ///
    /// As JSON it is one entry a line, as `gemba replay --entries` reads them; `gemba spool export --entries` has all that the
    /// buffer holds.
    List {
        /// How it looks
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Lines to read
    #[default]
    Text,
    /// A JSON object a line
    Json,
}

/// Who tells it.
#[derive(Debug, Args)]
struct Who {
    /// Your name
    #[arg(long, value_name = "NAME", env = "GEMBA_BY")]
    by: String,
}

/// How long the agent is waited for: it gives up by itself before that.
const PATIENCE: Duration = Duration::from_secs(30);

impl Enter {
    /// Tells or asks, and prints what the agent says.
    ///
    /// # Errors
    /// A wrong configuration, an entry that the agent does not take, no agent.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let Some(config) = self.config else {
            return Err(Misuse("--config FILE is missing: whose agent is to be told".to_owned()).into());
        };
        let config = Config::load(&config)?;
        let (zone, now) = (&config.timezone, Time::now());
        let told = match self.command {
            Command::Reason(of) => of.json(zone, now)?,
            Command::Work(of) => of.json(zone, now)?,
            Command::Target(of) => of.json(zone, now)?,
            Command::Rejects(of) => of.json(zone, now)?,
            Command::Anomaly(of) => of.json(),
            Command::List { format } => return say(&list(&ask(&config, None)?, format)?),
        };
        let stored = ask(&config, Some(&told))?;
        say(&format!("taken: {}: {}\n", word(&stored["station"]), word(&stored["in_words"])))
    }
}

/// What the agent answers: to an entry, or to the question for the last ones.
fn ask(config: &Config, entry: Option<&Json>) -> anyhow::Result<Json> {
    let agent = reachable(config.http.listen);
    let (code, body) = briefly(async |_| {
        let client = Client::builder().no_proxy().redirect(redirect::Policy::none()).timeout(PATIENCE).build()?;
        let url = format!("http://{agent}/entries");
        let request = match entry {
            Some(entry) => client.post(url).header(header::CONTENT_TYPE, "application/json").body(entry.to_string()),
            None => client.get(url),
        };
        let answer = request.send().await.map_err(|error| unanswered(agent, &error, entry.is_some()))?;
        let code = answer.status();
        let body = answer.bytes().await.map_err(|error| unanswered(agent, &error, entry.is_some()))?;
        Ok((code, serde_json::from_slice::<Json>(&body).unwrap_or_default()))
    })?;
    match (code, body["detail"].as_str()) {
        (StatusCode::OK | StatusCode::CREATED, _) if body.is_object() => Ok(body),
        (code, Some(why)) if code.is_client_error() && code != StatusCode::NOT_FOUND => {
            Err(Misuse(readable(why)).into())
        }
        (code, Some(why)) if code.is_server_error() => {
            Err(anyhow::anyhow!("the agent on {agent} cannot take it now: {}", readable(why)))
        }
        (code, _) => Err(anyhow::anyhow!(
            "what answers on {agent} (http.listen) is no agent that knows of entries: {} for /entries",
            code.as_u16()
        )),
    }
}

/// Where the agent is to be met: one that listens on every address is on this machine's own, too.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

/// Of an entry that has been sent nobody knows what became of it: told again it might count twice.
fn unanswered(agent: SocketAddr, error: &reqwest::Error, sent: bool) -> anyhow::Error {
    let why = match (error.is_timeout(), error.is_connect()) {
        (true, _) => "does not answer in time",
        (false, true) => "does not answer",
        (false, false) => "broke off",
    };
    if sent && !error.is_connect() {
        return anyhow::anyhow!(
            "the agent on {agent} (http.listen) {why}, and may have taken the entry: look with `gemba enter list` before you \
             tell it again"
        );
    }
    anyhow::anyhow!("the agent on {agent} (http.listen) {why}: does `gemba run` run, with this configuration?")
}

fn list(body: &Json, format: Format) -> anyhow::Result<String> {
    let entries = body["entries"].as_array().context("the agent lists no entries")?;
    let line = |entry: &Json| match format {
        Format::Text => {
            let [entered, by, station, words] = ["entered", "by", "station", "in_words"].map(|key| word(&entry[key]));
            format!("{entered}  {by}  {station}: {words}\n")
        }
        Format::Json => {
            let mut entry = entry.clone();
            entry.as_object_mut().map(|entry| entry.remove("in_words"));
            format!("{entry}\n")
        }
    };
    Ok(entries.iter().map(line).collect())
}

fn word(text: &Json) -> String {
    text.as_str().map_or_else(|| "-".to_owned(), readable)
}

/// No terminal's commands.
fn readable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

fn say(text: &str) -> anyhow::Result<ExitCode> {
    std::io::stdout().write_all(text.as_bytes()).context("stdout")?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_that_listens_everywhere_is_met_on_this_machine() {
        for (listen, met) in [
            ("0.0.0.0:8080", "127.0.0.1:8080"),
            ("[::]:8080", "[::1]:8080"),
            ("10.0.0.7:80", "10.0.0.7:80"),
            ("127.0.0.1:8080", "127.0.0.1:8080"),
        ] {
            let address = |text: &str| text.parse::<SocketAddr>().expect("an address");
            assert_eq!(reachable(address(listen)), address(met));
        }
    }

    #[test]
    fn what_is_listed_as_json_can_be_replayed() {
        let body = serde_json::json!({ "entries": [
            { "entered": "2026-03-02T06:00:00Z", "by": "anna", "station": "a", "rejects": { "count": 1, "code": "x\u{1b}[2J" },
              "in_words": "1 rejected: x\u{1b}[2J" },
        ] });
        let lines = list(&body, Format::Json).expect("a list");
        let entry: crate::entries::EntryJson = serde_json::from_str(lines.trim()).expect("an entry");
        assert_eq!(entry.by(), Some("anna"));
        let text = list(&body, Format::Text).expect("a list");
        assert_eq!(text, "2026-03-02T06:00:00Z  anna  a: 1 rejected: x [2J\n");
        assert!(list(&Json::Null, Format::Text).is_err());
    }

    #[test]
    fn an_entry_whose_answer_is_lost_may_have_been_taken() {
        let agent = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let at = agent.local_addr().expect("an address");
        let text = format!(
            r#"
site: s
line: l
timezone: UTC
http: {{ listen: "{at}" }}
stations:
  - name: a
    source: {{ type: mqtt, endpoint: "mqtt://h", client_id: c, topics: [{{ topic: t, payload: json }}] }}
    tags: [{{ name: s, path: "$.s" }}]
"#
        );
        let config = Config::from_str("line.yaml", &text).expect("a configuration");
        let answers = ["", "HTTP/1.1 201 Created\r\ncontent-length: 100\r\n\r\n{"];
        let breaks_off = std::thread::spawn(move || {
            for answer in answers {
                let (mut socket, _) = agent.accept().expect("somebody tells");
                let (mut said, mut byte) = (Vec::new(), [0]);
                while !said.ends_with(b"{}") && std::io::Read::read(&mut socket, &mut byte).expect("a request") == 1 {
                    said.push(byte[0]);
                }
                socket.write_all(answer.as_bytes()).expect("sent");
            }
        });
        for _ in answers {
            let error = ask(&config, Some(&serde_json::json!({}))).expect_err("no answer").to_string();
            let lost = "broke off, and may have taken the entry: look with `gemba enter list` before you tell it again";
            assert_eq!(error, format!("the agent on {at} (http.listen) {lost}"));
        }
        breaks_off.join().expect("two tellings");
        let error = ask(&config, Some(&serde_json::json!({}))).expect_err("nobody").to_string();
        assert!(error.contains("does not answer: does `gemba run` run"), "{error}");
    }
}

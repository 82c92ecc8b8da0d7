//! `gemba check --probe` and `gemba browse` as a person calls them, beside a gemba that runs: neither disturbs it.

use std::path::Path;
use std::time::Duration;

use gemba::config::Config;
use gemba_drivers::Time;
use gemba_tests::agent::{Agent, station};
use gemba_tests::line::{Line, OVEN};
use tokio::process::Command;
use tokio::time::{interval, timeout};

/// Exit code, standard output, standard error.
async fn gemba(folder: &Path, args: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gemba-to-kill"));
    command.args(args).current_dir(folder).kill_on_drop(true);
    let ended = timeout(Duration::from_secs(60), command.output()).await.expect("it ends").expect("it starts");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    (ended.status.code(), text(ended.stdout), text(ended.stderr))
}

/// The rest of the row that begins with these two words.
fn row<'a>(table: &'a str, station: &str, tag: &str) -> &'a str {
    let of = |line: &&str| {
        let mut words = line.split_whitespace();
        (words.next(), words.next()) == (Some(station), Some(tag))
    };
    table.lines().find(of).unwrap_or_else(|| panic!("no row of {station} {tag} in\n{table}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_is_probed_and_browsed_while_it_runs() {
    let folder = tempfile::tempdir().expect("a folder");
    let line = Line::start().await;
    line.print(1, 19_271, 423, 48.5);
    line.inspect("Execute", 18_848, 423, 0.875, Time::now());
    let yaml = line.config(folder.path());
    std::fs::write(folder.path().join("line.yaml"), &yaml).expect("written");
    let agent = Agent::start(&yaml).await;
    let mut oven = line.oven();
    let payload = r#"{"state":"running","count":7,"zones":[{"temp":241.5}],"recipe":"A 7"}"#;
    let publishing = tokio::spawn(async move {
        let mut beats = interval(Duration::from_millis(100));
        loop {
            beats.tick().await;
            let _ = oven.publish(OVEN, payload).await;
        }
    });
    agent.until("the oven is heard", |health| station(health, "oven-1")["state"] == "producing").await;

    let (code, told, complaint) = gemba(folder.path(), &["check", "--config", "line.yaml", "--probe"]).await;
    assert_eq!((code, complaint.as_str()), (Some(0), ""), "{told}");
    for (station, tag, value) in [
        ("printer-1", "total", "19271 {part}"),
        ("printer-1", "squeegee_pressure", "48.5 N"),
        ("aoi-1", "state", "Execute"),
        ("aoi-1", "score", "0.875 1"),
        ("oven-1", "zone1", "241.5 Cel"),
    ] {
        let row = row(&told, station, tag);
        assert!(row.contains(value) && row.contains("good") && row.ends_with(" ms"), "{row}");
    }
    // What two registers would be with the words the other way round.
    let otherwise = 19_271_u32.rotate_left(16).to_string();
    assert!(told.contains(&otherwise), "{otherwise} in {told}");

    // A station that has no tags yet is asked what it has, and takes the answer.
    let bare = yaml.split("    tags:").next().expect("text").replace("printer-1", "bare-1");
    let bare = bare.replace("poll: 200ms", "pause: 1ms");
    std::fs::write(folder.path().join("bare.yaml"), bare).expect("written");
    let (code, told, complaint) = gemba(folder.path(), &["browse", "--config", "bare.yaml", "bare-1"]).await;
    assert_eq!(code, Some(0), "{told}{complaint}");
    assert!(told.contains("address: \"holding:0\"") && told.contains("address: \"input:10\""), "{told}");
    let (code, told, complaint) =
        gemba(folder.path(), &["browse", "--config", "line.yaml", "aoi-1", "--filter", "*st*"]).await;
    assert_eq!(code, Some(0), "{told}{complaint}");
    for (name, there) in [("State", true), ("Score", false), ("Good", false), ("Reject", false)] {
        assert_eq!(told.contains(&format!("\"nsu=urn:fab-2:aoi;s={name}\"")), there, "{name} in {told}");
    }
    let (code, told, complaint) =
        gemba(folder.path(), &["browse", "--config", "line.yaml", "oven-1", "--listen", "1s"]).await;
    assert_eq!(code, Some(0), "{told}{complaint}");
    let tags: String = told.lines().map(|line| format!("    {line}\n")).collect();
    assert!(tags.contains("recipe"), "{tags}");
    let copied = format!(
        "site: s\nline: l\ntimezone: UTC\nstations:\n  - name: oven-1\n    source: {{ type: mqtt, endpoint: \"mqtt://broker\", topics: [{{ topic: \"{OVEN}\" }}] }}\n{tags}"
    );
    let config = Config::from_str("copied.yaml", &copied).unwrap_or_else(|error| panic!("{error}\n{copied}"));
    assert_eq!(config.tags.len(), 4, "{copied}");

    let (code, _, complaint) = gemba(folder.path(), &["browse", "--config", "line.yaml", "aoi-2"]).await;
    assert_eq!(code, Some(2), "{complaint}");
    assert!(complaint.contains("did you mean `aoi-1`?"), "{complaint}");

    // The agent was not thrown out anywhere, and every session but its own is closed.
    let health = agent.health().await;
    for station in health["stations"].as_array().expect("stations") {
        assert_eq!((&station["link"], &station["state"]), (&"connected".into(), &"producing".into()), "{station}");
    }
    assert_eq!(line.aoi.sessions(), 1);
    publishing.abort();
    agent.stop().await;

    drop(line);
    let (code, told, complaint) = gemba(folder.path(), &["check", "--config", "line.yaml", "--probe"]).await;
    assert_eq!((code, complaint.as_str()), (Some(1), ""), "{told}");
    for station in ["printer-1", "aoi-1", "oven-1"] {
        assert!(told.contains(&format!("\n{station}: ")), "{station} in {told}");
    }
    assert!(told.contains("unreachable"), "{told}");
}

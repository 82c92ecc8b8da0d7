//! The README keeps its word: its YAML loads, its commands are there, its links lead somewhere.

use std::path::{Path, PathBuf};
use std::process::Command;

use gemba::config::Config;

const README: &str = include_str!("../../README.md");

/// The blocks of this language, without their fences.
fn blocks(language: &str) -> Vec<&'static str> {
    let fence = format!("```{language}\n");
    README.split(&fence).skip(1).map(|rest| rest.split("\n```").next().unwrap_or_default()).collect()
}

#[test]
fn the_line_in_40_lines_loads_as_it_is_printed() {
    let [yaml] = blocks("yaml")[..] else { panic!("one line is explained") };
    let config = Config::from_str("README.md", yaml).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(config.stations.len(), 3);
    assert_eq!(config.links.len(), 3, "three protocols");
    let lines = yaml.lines().filter(|line| !line.trim().is_empty()).count();
    assert_eq!(lines, 40, "as its heading says");
}

/// A command that has gone, or was renamed, would have no help.
#[test]
fn every_command_that_it_names_has_help() {
    let named = README.split("`gemba ").skip(1).filter_map(|rest| rest.split('`').next());
    let mut asked = 0;
    for command in named {
        let words = command.split(' ').take_while(|word| word.starts_with(|first: char| first.is_ascii_lowercase()));
        let mut gemba = Command::new(env!("CARGO_BIN_EXE_gemba"));
        let help = gemba.args(words).arg("--help").output().expect("it starts");
        assert!(help.status.success(), "gemba {command}: {}", String::from_utf8_lossy(&help.stderr));
        asked += 1;
    }
    assert!(asked >= 6, "the table of commands is there");
}

#[test]
fn every_link_leads_to_something_in_this_folder() {
    let top: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let links = README.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    let inside: Vec<_> = links.filter(|link| !link.contains("://") && !link.starts_with('#')).collect();
    assert!(inside.len() > 10, "{inside:?}");
    for link in inside {
        let path = link.split('#').next().unwrap_or(link);
        assert!(top.join(path).exists(), "{link} leads nowhere");
    }
}

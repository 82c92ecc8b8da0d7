//! The configuration from the outside: what loads, what it comes to, and every mistake with its full message.

use std::path::{Path, PathBuf};
use std::time::Duration;

use gemba::config::{Config, Source};
use proptest::prelude::*;

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn yaml_files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .expect("the folder is there")
        .map(|entry| entry.expect("listed").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
        .collect();
    files.sort();
    assert!(!files.is_empty());
    files
}

fn name(path: &Path) -> &str {
    path.file_name().and_then(|name| name.to_str()).expect("a UTF-8 name")
}

/// Each file in tests/config/bad begins with the messages it must give, all of them, each after `#! `.
#[test]
fn every_mistake_is_told_in_full() {
    let mut wrong = Vec::new();
    for path in yaml_files(&folder("tests/config/bad")) {
        let text = std::fs::read_to_string(&path).expect("readable");
        let expected: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("#! ")).collect();
        let found = match Config::from_str(name(&path), &text) {
            Ok(_) => "nothing wrong".to_owned(),
            Err(error) => error.to_string(),
        };
        if found != expected.join("\n") || expected.is_empty() {
            wrong.push(format!("{}\nexpected\n{}\nfound\n{found}\n", name(&path), expected.join("\n")));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

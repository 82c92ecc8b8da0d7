//! Bad blocks under a sealed segment.

use std::fs;

use crate::rig::{drain, sealed, settings, start};

#[test]
fn readings_lost_with_a_damaged_segment_are_told_to_the_reading() {
    let folder = tempfile::tempdir().expect("a folder");
    drop(sealed(folder.path(), 20_000));
    let mut segments: Vec<_> = fs::read_dir(folder.path())
        .expect("lists")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("seg-readings-")))
        .collect();
    segments.sort();
    let victim = segments.get(1).expect("a second segment").join("db");
    // A block of 4 KiB reads as zeros.
    let mut bytes = fs::read(&victim).expect("reads");
    bytes[4_096..8_192].fill(0);
    fs::write(&victim, bytes).expect("writes");

    let mut spool = start(settings(folder.path())).expect("damage does not keep it from opening");
    assert_eq!(spool.recovery.losses, [], "found when it is read");
    let got = drain(&mut spool);
    assert!(got.windows(2).all(|pair| pair[0] < pair[1]), "in order, each once");
    let losses = spool.sealer.work().expect("keeps house").losses;
    let [loss] = &losses[..] else { panic!("{losses:?}") };
    assert_eq!((&*loss.source, &*loss.reason), ("readings", "damaged on disk"));
    assert_eq!(got.len() as u64 + loss.count, 20_000);
    // 4 KiB hold some 600 of these readings, and a frame is cut at either side.
    assert!(loss.count < 1_500, "{} readings for a block", loss.count);
    assert!(loss.from < loss.to);

    // Until it is written down as a record, a restart tells it again.
    drop(spool);
    let spool = start(settings(folder.path())).expect("opens");
    assert_eq!(spool.recovery.losses, losses);
}

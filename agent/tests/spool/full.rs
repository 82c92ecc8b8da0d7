//! A disk that is full for real: a small tmpfs, in a mount namespace of the child's own.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use gemba::spool::Opened;

use crate::rig::{FOLDER, child, drain, readings, settings, start, time_of};

/// Mounts 4 MiB on the child's folder, then becomes the child.
const ON_TMPFS: &str = "mount -t tmpfs -o size=4m tmpfs \"$GEMBA_TEST_SPOOL\" && exec \"$@\"";

#[test]
fn a_full_disk_refuses_commits_and_loses_only_what_is_told() {
    let possible = Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount", "mount", "-t", "tmpfs", "tmpfs", "/mnt"])
        .stderr(Stdio::null())
        .status();
    if !possible.is_ok_and(|status| status.success()) {
        // Past the capture of a test that passes: what was skipped is to be seen.
        let why = b"SKIPPED: a full disk; no tmpfs can be mounted here (unshare --user --map-root-user --mount)\n";
        std::io::stderr().write_all(why).expect("stderr");
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let program = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", ON_TMPFS, "sh"];
    let output = child("full::on_a_disk_of_four_mebibytes", folder.path(), &program).output().expect("starts");
    let said = [&output.stdout[..], &output.stderr].map(String::from_utf8_lossy).concat();
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
    assert!(said.contains("made room"), "{said}");
}

/// The child's part; nothing to do when it is not one.
#[test]
fn on_a_disk_of_four_mebibytes() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let folder = Path::new(&folder);
    let mut next = 0;
    let mut told = 0;
    let mut spool = start(settings(folder)).expect("opens");
    // Somebody else takes all but 2 MiB.
    let stranger = folder.join("stranger");
    std::fs::write(&stranger, vec![1; 2 << 20]).expect("writes");

    let mut refusals = 0;
    // Nobody keeps house before the disk is full.
    while refusals < 3 {
        spool.writer.append(&readings(next..next + 100));
        next += 100;
        while let Err(error) = spool.writer.commit(time_of(next)) {
            assert!(error.is_full(), "{error}");
            assert!(spool.writer.view().error.is_some() && spool.writer.pending_bytes() > 0);
            refusals += 1;
            let before = told;
            // Sealing may fail for want of room, too; what was dropped is told by the round after.
            for _ in 0..20 {
                match spool.sealer.work() {
                    Ok(worked) => told += worked.losses.iter().map(|loss| loss.count).sum::<u64>(),
                    Err(error) => eprintln!("no house-keeping: {error}"),
                }
            }
            assert!(told > before, "nothing was dropped, so nothing can ever be stored again");
            eprintln!("made room");
        }
        assert!(spool.writer.view().error.is_none());
    }
    assert_eq!(spool.writer.view().readings + told, next);

    // A restart on the full disk, and then all that is left.
    drop(spool);
    let Opened { writer, reader, sealer, ids, catalog, recovery } = start(settings(folder)).expect("opens");
    assert_eq!(recovery.losses.iter().map(|loss| loss.count).sum::<u64>(), told);
    let got = drain(&mut Opened { writer, reader, sealer, ids, catalog, recovery });
    assert_eq!(got.len() as u64 + told, next);
    assert_eq!(got.last(), Some(&(next - 1)), "the newest is there");
}

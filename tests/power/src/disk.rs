//! ext4 on a loop device on a disk that remembers; and what is left of it after a cut, checked and taken out.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Context as _, bail, ensure};

use crate::log::Entry;
use crate::record::{DISK, PROMISES, Recorder};

/// Bytes of a disk: room for ext4 and for some twenty sealed journals.
pub const SIZE: usize = 64 << 20;
/// Entries are journalled and written back twice a second and not every five: there is more to be cut off.
const OPTIONS: &str = "noatime,commit=1";
/// e2fsck: it was sound; it was mended.
const MENDED: [i32; 2] = [0, 1];

/// A new ext4, as bytes. Nothing of it is left to be written in the background later.
///
/// # Errors
/// When mke2fs is not there, or fails.
pub fn fresh(work: &Path) -> anyhow::Result<Vec<u8>> {
    let path = work.join("fresh");
    File::create(&path)?.set_len(SIZE as u64)?;
    let options = "lazy_itable_init=0,lazy_journal_init=0,nodiscard,hash_seed=00000000-0000-4000-8000-000000000000";
    run("mke2fs", ["-q", "-F", "-t", "ext4", "-b", "4096", "-J", "size=4", "-E", options].map(OsStr::new), &path)?;
    let image = fs::read(&path)?;
    fs::remove_file(&path)?;
    Ok(image)
}

/// A disk in use. What is still mounted when it is dropped is unmounted.
pub struct Attached {
    /// Where its files are.
    pub root: PathBuf,
    /// Where promises are written to.
    pub promises: PathBuf,
    point: PathBuf,
    mounted: bool,
    recorder: Option<Recorder>,
}

impl Attached {
    /// Mounts a disk with this content below `work`.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn new(image: Vec<u8>, work: &Path, discard: bool) -> anyhow::Result<Self> {
        let (point, root) = (work.join("recorder"), work.join("root"));
        fs::create_dir_all(&point)?;
        fs::create_dir_all(&root)?;
        let recorder = Recorder::mount(image, &point).context("mount a FUSE file system")?;
        let promises = point.join(PROMISES);
        let mut attached = Self { root, promises, point, mounted: false, recorder: Some(recorder) };
        let found = run("losetup", ["--direct-io=on", "--find", "--show"].map(OsStr::new), &attached.point.join(DISK))?;
        let device = PathBuf::from(String::from_utf8(found.stdout)?.trim());
        let options = format!("{OPTIONS}{}", if discard { ",discard" } else { "" });
        let mounted =
            run("mount", ["-t", "ext4", "-o", &options, &device.display().to_string()].map(OsStr::new), &attached.root);
        attached.mounted = mounted.is_ok();
        // In use it only goes when it is unmounted, however that comes about.
        run("losetup", [OsStr::new("--detach")], &device)?;
        mounted?;
        Ok(attached)
    }

    /// How much the disk was told so far.
    #[must_use]
    pub fn told(&self) -> usize {
        self.recorder.as_ref().map_or(0, Recorder::len)
    }

    /// Unmounts, and hands out all that the disk was told.
    ///
    /// # Errors
    /// When somebody still has a file open.
    pub fn finish(mut self) -> anyhow::Result<Vec<Entry>> {
        self.unmount()?;
        Ok(self.recorder.take().context("it was mounted")?.finish()?)
    }

    fn unmount(&mut self) -> anyhow::Result<()> {
        if std::mem::take(&mut self.mounted) {
            run("umount", [], &self.root)?;
        }
        Ok(())
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        if self.recorder.is_some()
            && let Err(error) = self.unmount()
        {
            eprintln!("{error:#}");
        }
    }
}

/// Mends a disk as a start does, takes the folder `name` out of it to `to`, and returns the disk as it is then. When
/// nothing of that name is on the disk `to` is not there either.
///
/// # Errors
/// When the disk cannot be mended or read.
pub fn recover(image: &[u8], work: &Path, name: &str, to: &Path) -> anyhow::Result<Vec<u8>> {
    let path = work.join("cut");
    write_sparse(&path, image)?;
    let checked = Command::new("e2fsck").arg("-fy").arg(&path).stdin(Stdio::null()).output().context("e2fsck")?;
    if !checked.status.code().is_some_and(|code| MENDED.contains(&code)) {
        bail!(
            "e2fsck gives up: {}{}",
            String::from_utf8_lossy(&checked.stdout),
            String::from_utf8_lossy(&checked.stderr)
        );
    }
    let parent = to.parent().context("a folder")?;
    let request = format!("rdump /{name} {}", parent.display());
    let dumped = run("debugfs", ["-R", &request].map(OsStr::new), &path)?;
    let said = String::from_utf8_lossy(&dumped.stderr);
    let trouble =
        said.lines().filter(|line| !line.starts_with("debugfs ") && !line.contains("File not found by ext2_lookup"));
    let trouble: Vec<_> = trouble.collect();
    ensure!(trouble.is_empty(), "debugfs: {}", trouble.join("; "));
    let mended = fs::read(&path)?;
    fs::remove_file(&path)?;
    Ok(mended)
}

/// A file of these bytes, in which zeros need no room.
///
/// # Errors
/// When the disk refuses.
pub fn write_sparse(path: &Path, image: &[u8]) -> anyhow::Result<()> {
    const CHUNK: usize = 64 << 10;
    let file = File::create(path)?;
    file.set_len(image.len() as u64)?;
    for (number, chunk) in (0_u64..).zip(image.chunks(CHUNK)) {
        if chunk.iter().any(|byte| *byte != 0) {
            file.write_all_at(chunk, number * CHUNK as u64)?;
        }
    }
    Ok(())
}

fn run<'a>(program: &str, arguments: impl IntoIterator<Item = &'a OsStr>, path: &Path) -> anyhow::Result<Output> {
    let output =
        Command::new(program).args(arguments).arg(path).stdin(Stdio::null()).output().context(program.to_owned())?;
    ensure!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(output)
}

//! A disk that remembers: a FUSE file system of two files. `disk` is the disk, as a file for a loop device. What is written
//! to `promises` becomes a mark in the disk's own log.
//!
//! One thread answers the kernel, and enters what it was told into the log before it answers. So whoever promises something
//! after an fsync came back has its mark behind that flush, and whatever is cut off before the mark was not promised yet:
//! promises and writes stand in one order. (A sector of the same disk would do as well, but could be lost itself.)

use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo,
    InitFlags, KernelConfig, LockOwner, MountOption, OpenFlags, ReplyAttr, ReplyData, ReplyEmpty, ReplyEntry,
    ReplyOpen, ReplyWrite, Request, WriteFlags,
};

use crate::log::{Entry, MAX_MARK, SECTOR};

/// The disk's name below the mount point.
pub const DISK: &str = "disk";
/// The name of the file that takes promises, one a write.
pub const PROMISES: &str = "promises";

const DISK_INODE: INodeNo = INodeNo(2);
const PROMISES_INODE: INodeNo = INodeNo(3);
/// Nothing here changes by itself.
const VALID: Duration = Duration::from_secs(3_600);
/// fallocate(2): give the blocks back; make them read as zeros. On a disk both are the same.
const PUNCH_HOLE: i32 = 2;
const ZERO_RANGE: i32 = 16;

/// A mounted disk that remembers. It is unmounted when dropped.
pub struct Recorder {
    session: Option<BackgroundSession>,
    told: Arc<Mutex<Told>>,
}

#[derive(Default)]
struct Told {
    image: Vec<u8>,
    entries: Vec<Entry>,
}

impl Recorder {
    /// Mounts a disk with this content at `point`.
    ///
    /// # Errors
    /// When the kernel refuses: no FUSE, not root.
    pub fn mount(image: Vec<u8>, point: &Path) -> io::Result<Self> {
        let told = Arc::new(Mutex::new(Told { image, entries: Vec::new() }));
        let mut config = Config::default();
        config.mount_options = vec![MountOption::FSName("gemba-power".into())];
        config.n_threads = Some(1); // one order
        let session = fuser::spawn_mount(Files(Arc::clone(&told)), point, &config)?;
        Ok(Self { session: Some(session), told })
    }

    /// How much was told so far.
    #[must_use]
    pub fn len(&self) -> usize {
        lock(&self.told).entries.len()
    }

    /// Unmounts, and hands out all that was told.
    ///
    /// # Errors
    /// When somebody still has a file open.
    pub fn finish(mut self) -> io::Result<Vec<Entry>> {
        self.session.take().map_or(Ok(()), BackgroundSession::umount_and_join)?;
        Ok(std::mem::take(&mut lock(&self.told).entries))
    }
}

fn lock(told: &Mutex<Told>) -> MutexGuard<'_, Told> {
    told.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Files(Arc<Mutex<Told>>);

impl Files {
    fn attributes(&self, inode: INodeNo) -> Option<FileAttr> {
        let (kind, perm, size) = match inode {
            INodeNo::ROOT => (FileType::Directory, 0o700, 0),
            DISK_INODE => (FileType::RegularFile, 0o600, lock(&self.0).image.len() as u64),
            PROMISES_INODE => (FileType::RegularFile, 0o600, 0),
            _ => return None,
        };
        Some(FileAttr {
            ino: inode,
            size,
            blocks: size / SECTOR as u64,
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind,
            perm,
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: 4_096,
            flags: 0,
        })
    }
}

impl Filesystem for Files {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        // The largest that the kernel sends: a write of the disk stays one write.
        let _ = config.set_max_write(1 << 20);
        let _ = config.add_capabilities(InitFlags::FUSE_MAX_PAGES);
        Ok(())
    }

    fn lookup(&self, _: &Request, _: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let inode = match name.to_str() {
            Some(DISK) => DISK_INODE,
            Some(PROMISES) => PROMISES_INODE,
            _ => return reply.error(Errno::ENOENT),
        };
        match self.attributes(inode) {
            Some(attributes) => reply.entry(&VALID, &attributes, Generation(0)),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(&self, _: &Request, inode: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.attributes(inode) {
            Some(attributes) => reply.attr(&VALID, &attributes),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn open(&self, _: &Request, inode: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        // Past the page cache: what is told comes here, and at once.
        let flags = if inode == PROMISES_INODE { FopenFlags::FOPEN_DIRECT_IO } else { FopenFlags::empty() };
        reply.opened(FileHandle(0), flags);
    }

    fn read(
        &self,
        _: &Request,
        inode: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        if inode != DISK_INODE {
            return reply.data(&[]);
        }
        let told = lock(&self.0);
        let from = usize::try_from(offset).map_or(told.image.len(), |offset| offset.min(told.image.len()));
        let to = from.saturating_add(size as usize).min(told.image.len());
        reply.data(&told.image[from..to]);
    }

    fn write(
        &self,
        _: &Request,
        inode: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let mut told = lock(&self.0);
        let entry = if inode == PROMISES_INODE {
            if data.len() > MAX_MARK {
                return reply.error(Errno::EFBIG);
            }
            Entry::Mark(data.to_vec())
        } else {
            let Some(place) = place(&mut told.image, offset, data.len() as u64) else {
                return reply.error(Errno::EINVAL);
            };
            place.copy_from_slice(data);
            Entry::Write { sector: offset / SECTOR as u64, data: data.to_vec() }
        };
        told.entries.push(entry);
        reply.written(u32::try_from(data.len()).unwrap_or(u32::MAX));
    }

    fn fsync(&self, _: &Request, inode: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        if inode == DISK_INODE {
            lock(&self.0).entries.push(Entry::Flush);
        }
        reply.ok();
    }

    fn fallocate(
        &self,
        _: &Request,
        inode: INodeNo,
        _: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        if inode != DISK_INODE || mode & (PUNCH_HOLE | ZERO_RANGE) == 0 {
            return reply.error(Errno::EOPNOTSUPP);
        }
        let mut told = lock(&self.0);
        let Some(place) = place(&mut told.image, offset, length) else { return reply.error(Errno::EINVAL) };
        place.fill(0);
        let (sector, sectors) = (offset / SECTOR as u64, length / SECTOR as u64);
        told.entries.push(Entry::Discard { sector, sectors });
        reply.ok();
    }
}

/// Whole sectors of the image; `None` when they are not, or lie outside.
fn place(image: &mut [u8], offset: u64, length: u64) -> Option<&mut [u8]> {
    let (from, length) = (usize::try_from(offset).ok()?, usize::try_from(length).ok()?);
    (from % SECTOR == 0 && length % SECTOR == 0).then(|| image.get_mut(from..from.checked_add(length)?)).flatten()
}

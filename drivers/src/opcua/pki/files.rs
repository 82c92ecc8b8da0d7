//! Files that are there whole or not at all, and belong to whom the folder belongs to.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};

use super::PkiError;

/// No certificate or key is larger.
const LARGEST: u64 = 1 << 20;

/// What the file says.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, PkiError> {
    let read = || {
        if fs::metadata(path)?.len() > LARGEST {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, "too large for a certificate or a key"));
        }
        fs::read(path)
    };
    read().map_err(error(path))
}

/// The same; `None` when there is no such file.
pub(super) fn read_if_there(path: &Path) -> Result<Option<Vec<u8>>, PkiError> {
    match read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(PkiError::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The files in `folder` by name; none when it is not there.
pub(super) fn list(folder: &Path) -> Result<Vec<PathBuf>, PkiError> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(PkiError::File { path: folder.to_owned(), source }),
    };
    let mut files =
        entries.map(|entry| entry.map(|entry| entry.path())).collect::<io::Result<Vec<_>>>().map_err(error(folder))?;
    files.retain(|file| file.is_file() && !is_temporary(file));
    files.sort();
    Ok(files)
}

/// Writes a file that only shows up whole, with these rights.
pub(super) fn write(path: &Path, bytes: &[u8], mode: u32) -> Result<(), PkiError> {
    let temporary = path.with_extension(format!("{}.tmp", std::process::id()));
    let written = || {
        let _ = fs::remove_file(&temporary);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        give_to_owner_of_parent(&temporary);
        fs::rename(&temporary, path)?;
        path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
    };
    written().map_err(|source| {
        let _ = fs::remove_file(&temporary);
        PkiError::File { path: path.to_owned(), source }
    })
}

/// Removes a file; harmless when it is gone.
pub(super) fn remove(path: &Path) -> Result<(), PkiError> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(PkiError::File { path: path.to_owned(), source })
        }
        _ => Ok(()),
    }
}

/// Makes a folder that nobody else looks into; one that is there keeps its rights.
pub(super) fn make_folder(path: &Path) -> Result<(), PkiError> {
    if path.is_dir() {
        return Ok(());
    }
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(error(path))?;
    give_to_owner_of_parent(path);
    Ok(())
}

/// Takes the rights to a file away from everybody but its owner.
pub(super) fn make_private(path: &Path) -> Result<(), PkiError> {
    let mode = fs::metadata(path).map_err(error(path))?.permissions().mode() & 0o777;
    if mode & 0o077 == 0 {
        return Ok(());
    }
    tracing::warn!(file = %path.display(), mode = format_args!("{mode:o}"), "others could read the private key");
    fs::set_permissions(path, Permissions::from_mode(0o600)).map_err(error(path))
}

/// So that what root makes on the command line is of use to the agent, which is not root. Nobody else may, or needs to.
fn give_to_owner_of_parent(path: &Path) {
    let Some(Ok(parent)) = path.parent().map(fs::metadata) else { return };
    let _ = chown(path, Some(parent.uid()), Some(parent.gid()));
}

fn is_temporary(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "tmp")
}

fn error(path: &Path) -> impl Fn(io::Error) -> PkiError + use<> {
    let path = path.to_owned();
    move |source| PkiError::File { path: path.clone(), source }
}

//! Syncs taken out of a program that makes them: a filter in the kernel answers the call, and nothing happens. Works for
//! any program that is started afterwards, without a change of it.

use clap::ValueEnum;
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};

/// What can be taken out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Sync {
    /// What makes a file's content durable: the journal's commits.
    Fdatasync,
    /// What makes files, folders and names durable: everything else.
    Fsync,
}

impl Sync {
    /// The system call's name.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Fdatasync => "fdatasync",
            Self::Fsync => "fsync",
        }
    }

    /// Its number (arch/x86/entry/syscalls/syscall_64.tbl, include/uapi/asm-generic/unistd.h).
    fn number(self) -> anyhow::Result<i64> {
        Ok(match (std::env::consts::ARCH, self) {
            ("x86_64", Self::Fdatasync) => 75,
            ("x86_64", Self::Fsync) => 74,
            ("aarch64", Self::Fdatasync) => 83,
            ("aarch64", Self::Fsync) => 82,
            (other, _) => anyhow::bail!("no number of {} is known for {other}", self.word()),
        })
    }
}

/// From now on this call does nothing in this thread and in all that it starts, other programs included.
///
/// # Errors
/// When the kernel has no filters.
pub fn disable(sync: Sync) -> anyhow::Result<()> {
    let rules = [(sync.number()?, Vec::new())].into();
    let arch = std::env::consts::ARCH.try_into()?;
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, SeccompAction::Errno(0), arch)?;
    seccompiler::apply_filter(&BpfProgram::try_from(filter)?)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;

    use super::*;

    #[test]
    fn a_sync_that_was_taken_out_is_not_made() {
        let (read, _write) = std::io::pipe().expect("a pipe");
        let pipe = std::fs::File::from(read.as_fd().try_clone_to_owned().expect("another handle"));
        // A pipe cannot be synced: whoever is told otherwise did not ask the kernel.
        pipe.sync_data().expect_err("a pipe");
        std::thread::spawn(move || {
            disable(Sync::Fdatasync).expect("the kernel has filters");
            pipe.sync_data().expect("nobody looks");
            pipe.sync_all().expect_err("that one is still made");
        })
        .join()
        .expect("no panic");
    }
}

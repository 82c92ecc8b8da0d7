//! One heap for all threads (docs/decisions/0004-one-heap.md).

use std::env;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

/// glibc's limit of heaps. Allocators of other C libraries do not know it.
const HEAPS: &str = "MALLOC_ARENA_MAX";

/// Starts the process over, once, with the wish for a single heap: the same process id, program and arguments. Returns if
/// the wish is there already, whatever it says, or if that does not work, which costs memory and nothing else.
///
/// To be called before anything is opened or started.
pub fn share() {
    if cfg!(not(target_env = "gnu")) || env::var_os(HEAPS).is_some() {
        return;
    }
    let (Ok(program), mut words) = (env::current_exe(), env::args_os()) else { return };
    let mut again = Command::new(program);
    if let Some(name) = words.next() {
        again.arg0(name);
    }
    // Returns only when it fails.
    let _ = again.args(words).env(HEAPS, "1").exec();
}

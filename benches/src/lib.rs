//! What the benches share. Each bin in `src/bin` prints figures; none of them asserts a time.

use std::time::Duration;

/// What a process has used so far, as the kernel accounts it (proc(5)).
#[derive(Clone, Copy, Debug)]
pub struct Usage {
    /// User and system time.
    pub cpu: Duration,
    /// Resident memory now, in bytes.
    pub resident: u64,
    /// Its highest ever.
    pub peak: u64,
    /// Bytes that went to the disk.
    pub written: u64,
}

impl Usage {
    /// Reads the figures of process `id`.
    ///
    /// # Errors
    /// If there is no such process.
    pub fn of(id: u32) -> anyhow::Result<Self> {
        let stat = std::fs::read_to_string(format!("/proc/{id}/stat"))?;
        // Fields are counted behind the name, which may hold anything: utime is the 14th, stime the 15th.
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
        let ticks = |index: usize| fields.get(index).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
        let cpu = Duration::from_millis((ticks(11) + ticks(12)) * 10); // 100 ticks a second on every Linux we run on
        let status = std::fs::read_to_string(format!("/proc/{id}/status"))?;
        let kib = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) << 10
        };
        let io = std::fs::read_to_string(format!("/proc/{id}/io")).unwrap_or_default();
        let written = io.lines().find_map(|line| line.strip_prefix("write_bytes: ")?.parse().ok()).unwrap_or(0);
        Ok(Self { cpu, resident: kib("VmRSS:"), peak: kib("VmHWM:"), written })
    }
}

/// Bytes as MiB, for people.
#[must_use]
pub fn mib(bytes: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "for people")]
    let bytes = bytes as f64;
    bytes / f64::from(1 << 20)
}

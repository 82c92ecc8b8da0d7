use std::time::Duration;

/// What a process has used so far, as the kernel accounts it (proc(5)): all its threads, those that ended too.
#[derive(Clone, Copy, Debug)]
pub struct Usage {
    /// User and system time, to 10 ms.
    pub cpu: Duration,
    /// Resident memory now, in bytes: what `ps` and `top` call RSS.
    pub resident: u64,
    /// Of it, what is the process's own and not pages of its executable, which the kernel takes back when it must.
    pub own: u64,
    /// The most that was ever resident.
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
        Ok(Self { cpu, resident: kib("VmRSS:"), own: kib("RssAnon:"), peak: kib("VmHWM:"), written })
    }
}

//! The machine below: what `system.*`, `hw.*` and `process.*` of OpenTelemetry's semantic conventions ask for, from
//! `/proc` and `/sys` by way of sysinfo.
//!
//! These figures are the gateway's, so they carry no `factory.station`. What the machine does not tell is left out.
//! `used` memory is what cannot be given back on demand, and `free` the rest, so that both make up the whole.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use gemba_drivers::Time;
use gemba_drivers::treat::clock::GatewayClock;
use sysinfo::{
    Components, CpuRefreshKind, MemoryRefreshKind, Networks, Pid, Process, ProcessRefreshKind, ProcessesToUpdate,
    RefreshKind, System,
};

use crate::snapshot::GatewayView;
use crate::telemetry::metric::{Kind, Metric, Number, Point};

/// How often the machine is looked at.
pub const EVERY: Duration = Duration::from_secs(10);

/// Looks at the machine. Shares are of the time between two looks, so the first look has none.
pub struct Host {
    system: System,
    networks: Networks,
    components: Components,
    process: Option<Pid>,
    /// The spool's folder: its disk is the one that matters.
    spool: PathBuf,
    clock: Arc<GatewayClock>,
    looked: bool,
}

impl Host {
    /// Begins to watch; `spool` lies on the disk that is told of, and `clock` knows the machine's.
    #[must_use]
    pub fn new(spool: &Path, clock: Arc<GatewayClock>) -> Self {
        Self {
            system: System::new_with_specifics(
                RefreshKind::nothing().with_cpu(CpuRefreshKind::nothing().with_cpu_usage()),
            ),
            networks: Networks::new_with_refreshed_list(),
            components: Components::new_with_refreshed_list(),
            process: sysinfo::get_current_pid().ok(),
            spool: spool.to_owned(),
            clock,
            looked: false,
        }
    }

    /// How it stands at `now`. Reads some twenty small files of the kernel's: less than a millisecond, or what a sensor takes.
    pub fn look(&mut self, now: Time) -> GatewayView {
        self.system.refresh_cpu_usage();
        self.system.refresh_memory_specifics(MemoryRefreshKind::nothing().with_ram());
        self.networks.refresh(true);
        self.components.refresh(true);
        if let Some(process) = self.process {
            let what = ProcessRefreshKind::nothing().with_cpu().with_memory().without_tasks();
            self.system.refresh_processes_specifics(ProcessesToUpdate::Some(&[process]), true, what);
        }
        let process = self.process.and_then(|process| self.system.process(process));
        let shares = std::mem::replace(&mut self.looked, true);
        let memory = (self.system.used_memory(), self.system.total_memory());
        let mut view = GatewayView {
            time: Some(now),
            clock: Some(self.clock.look()),
            cpu: shares.then(|| f64::from(self.system.global_cpu_usage()) / 100.0),
            memory: Some(memory).filter(|(_, total)| *total > 0),
            disk: disk(&self.spool),
            temperature: self.temperatures().map(|(_, degrees)| degrees).reduce(f64::max),
            process_cpu: process.filter(|_| shares).map(|process| f64::from(process.cpu_usage()) / 100.0),
            process_memory: process.map(Process::memory),
            metrics: Arc::default(),
        };
        view.metrics = self.metrics(&view, process).into();
        view
    }

    fn metrics(&self, view: &GatewayView, process: Option<&Process>) -> Vec<Metric> {
        let mut all = Vec::with_capacity(16);
        let booted = Kind::Count(whole_seconds(System::boot_time()));
        if let Some(cpu) = view.cpu {
            all.push(Metric::one(
                "system.cpu.utilization",
                "1",
                "Share of all cores at work.",
                Kind::Gauge,
                Number::Real(cpu),
            ));
        }
        if let Some(memory) = view.memory {
            let usage = ("system.memory.usage", "By", "Memory by what it is used for.");
            all.push(Metric::by(usage, Kind::Level, "system.memory.state", halves(memory)));
            let share = ("system.memory.utilization", "1", "Share of memory by what it is used for.");
            all.push(Metric::by(share, Kind::Gauge, "system.memory.state", shares(memory)));
        }
        if let Some(disk) = view.disk {
            let usage = ("system.filesystem.usage", "By", "The disk that holds the spool, by what it is used for.");
            all.push(Metric::by(usage, Kind::Level, "system.filesystem.state", halves(disk)));
            let share = ("system.filesystem.utilization", "1", "Share of the disk that holds the spool.");
            all.push(Metric::by(share, Kind::Gauge, "system.filesystem.state", shares(disk)));
        }
        let points = self.traffic();
        if !points.is_empty() {
            let (name, about) = ("system.network.io", "Bytes that went over each interface but the loopback.");
            all.push(Metric { name, unit: "By", about, kind: booted, points });
        }
        let sensors: Vec<_> = self.temperatures().map(|(id, degrees)| (id, Number::Real(degrees))).collect();
        if !sensors.is_empty() {
            let temperature = ("hw.temperature", "Cel", "What each sensor of the machine says.");
            all.push(Metric::by(temperature, Kind::Gauge, "hw.id", sensors));
        }
        let uptime = Number::Whole(System::uptime());
        all.push(Metric::one("system.uptime", "s", "Time since the machine started.", Kind::Gauge, uptime));
        if let Some(process) = process {
            self.process_metrics(view, process, &mut all);
        }
        all
    }

    fn process_metrics(&self, view: &GatewayView, process: &Process, all: &mut Vec<Metric>) {
        let started = Kind::Count(whole_seconds(process.start_time()));
        #[expect(clippy::cast_precision_loss, reason = "milliseconds of CPU stay below 2^53")]
        let spent = process.accumulated_cpu_time() as f64 / 1e3;
        all.push(Metric::one("process.cpu.time", "s", "CPU time of the agent.", started, Number::Real(spent)));
        if let Some(cores) = view.process_cpu {
            #[expect(clippy::cast_precision_loss, reason = "cores are few")]
            let share = cores / self.system.cpus().len().max(1) as f64;
            all.push(Metric::one(
                "process.cpu.utilization",
                "1",
                "Share of all cores that the agent takes.",
                Kind::Gauge,
                Number::Real(share),
            ));
        }
        let resident = Number::Whole(process.memory());
        all.push(Metric::one("process.memory.usage", "By", "Resident memory of the agent.", Kind::Level, resident));
        if let Some(open) = process.open_files() {
            all.push(Metric::one(
                "process.unix.file_descriptor.count",
                "{file_descriptor}",
                "Files and sockets that the agent holds open.",
                Kind::Level,
                Number::Whole(open as u64),
            ));
        }
        let uptime = Number::Whole(process.run_time());
        all.push(Metric::one("process.uptime", "s", "Time since the agent's process started.", Kind::Gauge, uptime));
    }

    /// Both directions of each interface but the loopback, in order of name.
    fn traffic(&self) -> Vec<Point> {
        let mut interfaces: Vec<_> = self.networks.list().iter().filter(|(name, _)| *name != "lo").collect();
        interfaces.sort_by_key(|(name, _)| *name);
        let mut points = Vec::with_capacity(interfaces.len() * 2);
        for (name, data) in interfaces {
            let name: Arc<str> = name.as_str().into();
            for (direction, bytes) in [("receive", data.total_received()), ("transmit", data.total_transmitted())] {
                let attributes =
                    vec![("network.interface.name", Arc::clone(&name)), ("network.io.direction", direction.into())];
                points.push(Point { attributes, value: Number::Whole(bytes) });
            }
        }
        points
    }

    /// Each sensor with degrees Celsius; a name that several have tells only of the first.
    fn temperatures(&self) -> impl Iterator<Item = (Arc<str>, f64)> {
        let name = |component: &sysinfo::Component| component.id().unwrap_or(component.label()).to_owned();
        let mut known = std::collections::BTreeMap::new();
        for component in self.components.list() {
            if let Some(degrees) = component.temperature().map(f64::from).filter(|degrees| degrees.is_finite()) {
                known.entry(name(component)).or_insert(degrees);
            }
        }
        known.into_iter().map(|(name, degrees)| (name.into(), degrees))
    }
}

/// Bytes in use on the disk that holds `path`, and its size without what is kept for root.
fn disk(path: &Path) -> Option<(u64, u64)> {
    let disk = rustix::fs::statvfs(path).ok()?;
    let used = disk.f_blocks.saturating_sub(disk.f_bfree);
    let total = used + disk.f_bavail;
    (total > 0).then(|| (used * disk.f_frsize, total * disk.f_frsize))
}

fn halves((used, total): (u64, u64)) -> [(Arc<str>, Number); 2] {
    [("used".into(), Number::Whole(used)), ("free".into(), Number::Whole(total.saturating_sub(used)))]
}

fn shares((used, total): (u64, u64)) -> [(Arc<str>, Number); 2] {
    #[expect(clippy::cast_precision_loss, reason = "a share needs no more digits")]
    let share = used as f64 / total as f64;
    [("used".into(), Number::Real(share)), ("free".into(), Number::Real(1.0 - share))]
}

fn whole_seconds(unix: u64) -> Time {
    Time::from_millis(i64::try_from(unix).unwrap_or(0).saturating_mul(1_000))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn looked_twice() -> GatewayView {
        let mut host = Host::new(Path::new("/"), Arc::default());
        let first = host.look(Time(1));
        assert_eq!((first.cpu, first.process_cpu), (None, None), "a share is of the time between two looks");
        std::thread::sleep(sysinfo::MINIMUM_CPU_UPDATE_INTERVAL);
        host.look(Time(2))
    }

    #[test]
    fn this_machine_has_memory_a_disk_and_us() {
        let view = looked_twice();
        assert_eq!(view.time, Some(Time(2)));
        assert!(view.clock.is_some());
        let (used, total) = view.memory.expect("memory");
        assert!(0 < used && used < total, "{used} of {total}");
        let (used, total) = view.disk.expect("a disk");
        assert!(used <= total && total > 0, "{used} of {total}");
        assert!(view.cpu.is_some_and(|cpu| (0.0..=1.0).contains(&cpu)), "{:?}", view.cpu);
        assert!(view.process_memory.is_some_and(|bytes| bytes > 1 << 20), "{:?}", view.process_memory);
        assert!(view.process_cpu.is_some_and(|cores| cores >= 0.0), "{:?}", view.process_cpu);
    }

    #[test]
    fn the_names_are_the_conventions_and_no_point_comes_twice() {
        let view = looked_twice();
        let names: Vec<_> = view.metrics.iter().map(|metric| metric.name).collect();
        let wanted = [
            "system.cpu.utilization",
            "system.memory.usage",
            "system.memory.utilization",
            "system.filesystem.usage",
            "system.filesystem.utilization",
            "system.uptime",
            "process.cpu.time",
            "process.cpu.utilization",
            "process.memory.usage",
            "process.unix.file_descriptor.count",
            "process.uptime",
        ];
        let held: Vec<_> = names.iter().copied().filter(|name| wanted.contains(name)).collect();
        assert_eq!(held, wanted);
        for metric in view.metrics.iter() {
            assert!(!metric.points.is_empty(), "{}", metric.name);
            let mut attributes: Vec<_> = metric.points.iter().map(|point| &point.attributes).collect();
            attributes.sort();
            attributes.dedup();
            assert_eq!(attributes.len(), metric.points.len(), "{}", metric.name);
            assert!(metric.points.iter().flat_map(|point| &point.attributes).all(|(_, value)| &**value != "lo"));
        }
    }

    #[test]
    fn a_disk_that_is_not_there_is_not_told_of() {
        assert_eq!(disk(Path::new("/there/is/no/such/folder")), None);
    }
}

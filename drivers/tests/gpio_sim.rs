//! The GPIO driver on the kernel's own simulated chip (Documentation/admin-guide/gpio/gpio-sim.rst in Linux): real character
//! devices, real edges. It needs the module gpio-sim and root, so it is ignored unless it is asked for; `.ci/run` asks where
//! the kernel has it, and says so where not.

#![cfg(feature = "gpio")]

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use gemba_drivers::gpio::{Bias, Client, Config, Edges, Input, Line, Output, Setup, Station};
use gemba_drivers::{Batch, Driver, LinkState, Outlet, Reading, TagId, Time, Value};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

const CONFIGFS: &str = "/sys/kernel/config/gpio-sim";
const DEADLINE: Duration = Duration::from_secs(30);

/// A chip of eight lines, gone when it is dropped.
struct Sim {
    device: PathBuf,
    lines: PathBuf,
    chip: PathBuf,
}

fn write(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}

fn read(path: &Path) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    text.trim().to_owned()
}

impl Sim {
    fn new(name: &str) -> Self {
        let device = Path::new(CONFIGFS).join(name);
        let bank = device.join("bank0");
        std::fs::create_dir_all(bank.join("line3")).expect("gpio-sim, and root");
        write(&bank.join("num_lines"), "8");
        write(&bank.join("line3").join("name"), "DOOR");
        write(&device.join("live"), "1");
        let (parent, chip) = (read(&device.join("dev_name")), read(&bank.join("chip_name")));
        let lines = Path::new("/sys/devices/platform").join(parent).join(&chip);
        Self { device, lines, chip: Path::new("/dev").join(chip) }
    }

    fn set(&self, line: u32, high: bool) {
        write(&self.lines.join(format!("sim_gpio{line}/pull")), if high { "pull-up" } else { "pull-down" });
    }

    /// The voltage of a line.
    fn high(&self, line: u32) -> bool {
        read(&self.lines.join(format!("sim_gpio{line}/value"))) == "1"
    }
}

impl Drop for Sim {
    fn drop(&mut self) {
        let bank = self.device.join("bank0");
        let _ = std::fs::write(self.device.join("live"), "0");
        for folder in [bank.join("line3"), bank, self.device.clone()] {
            let _ = std::fs::remove_dir(folder);
        }
    }
}

struct Inlet(mpsc::Receiver<Batch>, VecDeque<Reading>);

impl Inlet {
    /// Until a tag has this value.
    async fn until(&mut self, tag: u32, value: Value) -> Reading {
        timeout(DEADLINE, async {
            loop {
                while let Some(reading) = self.1.pop_front() {
                    if reading.tag == TagId(tag) && reading.value == value {
                        return reading;
                    }
                }
                self.1.extend(self.0.recv().await.expect("a batch").readings);
            }
        })
        .await
        .unwrap_or_else(|_| panic!("tag {tag} never became {value}"))
    }
}

fn input(id: u32, line: Line, setup: Setup, count: Option<Edges>) -> Input {
    Input { id: TagId(id), name: format!("in-{id}").into(), line, setup, count }
}

#[tokio::test]
#[ignore = "needs the kernel's gpio-sim and root; .ci/run asks for it where they are"]
async fn a_simulated_chip_is_read_counted_and_switched() {
    let sim = Sim::new("gemba-test");
    let pulled = Setup { active_low: true, bias: Some(Bias::PullUp), ..Setup::default() };
    let debounced = Setup { debounce: Duration::from_millis(5), ..Setup::default() };
    let inputs = vec![
        input(0, Line::Name("DOOR".into()), pulled, None),
        input(1, Line::Offset(4), Setup::default(), Some(Edges::Rising)),
        input(2, Line::Offset(5), debounced, None),
        input(3, Line::Offset(99), Setup::default(), None),
    ];
    let station = Station { name: "press-1".into(), poll: Duration::from_secs(1), inputs, channels: Vec::new() };
    let outputs = vec![Output { name: "red".into(), line: Line::Offset(6), active_low: true }];
    let config = Config { chip: sim.chip.clone(), stations: vec![station], outputs, devices: Vec::new() };

    let mut client = Client::new(config.clone());
    let red = client.switches().remove(0);
    client.connect().await.expect("the chip is there");
    assert!(sim.high(6), "off, which is high");
    let mut second = Client::new(Config { stations: Vec::new(), ..config });
    let busy = second.connect().await.expect_err("its output is taken").to_string();
    assert!(busy.contains("line 6") && busy.contains("`gemba`"), "{busy}");

    let (batches, inlet) = mpsc::channel(16);
    let outlet = Outlet::new(batches, Arc::new(watch::Sender::new(LinkState::new(Time::now()))));
    let mut inlet = Inlet(inlet, VecDeque::new());
    let script = async {
        inlet.until(0, Value::Bool(false)).await;
        inlet.until(3, Value::Null).await;
        let before = Time::now();
        sim.set(3, false);
        let open = inlet.until(0, Value::Bool(true)).await;
        assert!((before..=open.received_time).contains(&open.source_time), "the kernel's own time: {open:?}");
        for count in 1..=20 {
            sim.set(4, true);
            inlet.until(1, Value::Int(count)).await; // its interrupts are simulated too, and merge
            sim.set(4, false);
        }
        sim.set(5, true);
        inlet.until(2, Value::Bool(true)).await;
        red.set(true);
        timeout(DEADLINE, async {
            while sim.high(6) {
                tokio::task::yield_now().await;
            }
        })
        .await
        .expect("on, which is low");
    };
    tokio::select! {
        error = client.run(&outlet) => panic!("{error}"),
        () = script => {}
    }
    client.close().await;
    assert!(sim.high(6), "off again");
}

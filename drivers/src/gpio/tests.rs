//! The whole driver on a chip in memory.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use super::analog::Converter;
use super::hardware::{Ask, Edge, Fault, Hardware, LineInfo};
use super::output::Switched;
use super::*;
use crate::survey::{Offered, Scope, Survey};
use crate::{LinkState, Loss, OwnStatus, Reading, Status, Validity, Value, treat};

const MS: i64 = 1_000_000;

/// A chip in memory, and whoever works it.
#[derive(Clone, Default)]
struct Bench(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    /// The chip is not there.
    gone: Option<Fault>,
    lines: BTreeMap<u32, Pad>,
    /// Every request for an input, and every one for an output.
    asked: Vec<(u32, Ask)>,
    driven: Vec<u32>,
    /// What a converter says, by its name.
    volts: BTreeMap<String, Result<f64, Fault>>,
    opened: usize,
    /// The next converter that is asked says nothing until the other end is dropped.
    jam: Option<std::sync::mpsc::Receiver<()>>,
}

#[derive(Default)]
struct Pad {
    name: String,
    level: bool,
    refused: Option<Fault>,
    /// What the line cannot do.
    mute: bool,
    bounces: bool,
    broken: Option<Fault>,
    number: u32,
    queue: VecDeque<Edge>,
    waker: Option<Waker>,
    held: bool,
    lit: Option<bool>,
}

impl Bench {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("nobody panicked")
    }

    fn pad(&self, offset: u32, change: impl FnOnce(&mut Pad)) {
        let mut state = self.state();
        let pad = state.lines.entry(offset).or_default();
        change(pad);
        if let Some(waker) = pad.waker.take() {
            waker.wake();
        }
    }

    fn with(lines: &[u32]) -> Self {
        let bench = Self::default();
        lines.iter().for_each(|line| bench.pad(*line, |pad| pad.name = format!("GPIO{line}")));
        bench
    }

    /// An edge as the kernel tells it, `at` milliseconds.
    fn edge(&self, offset: u32, level: bool, at: i64) {
        self.pad(offset, |pad| {
            pad.level = level;
            pad.number = pad.number.wrapping_add(1);
            pad.queue.push_back(Edge { level, at: Time(at * MS), number: pad.number });
        });
    }

    fn lit(&self, offset: u32) -> Option<bool> {
        self.state().lines[&offset].lit
    }

    fn client(&self, config: Config) -> Client {
        Client::on(Box::new(self.clone()), config)
    }
}

impl Hardware for Bench {
    fn lines(&mut self) -> Result<Vec<LineInfo>, Fault> {
        let state = self.state();
        if let Some(gone) = &state.gone {
            return Err(gone.clone());
        }
        let info = |(&offset, pad): (&u32, &Pad)| LineInfo { offset, name: pad.name.clone(), ..LineInfo::default() };
        Ok(state.lines.iter().map(info).collect())
    }

    fn input(&mut self, offset: u32, ask: Ask) -> Result<Box<dyn hardware::Input>, Fault> {
        let mut state = self.state();
        state.asked.push((offset, ask));
        let pad = state.lines.get_mut(&offset).expect("it was listed");
        if let Some(refused) = &pad.refused {
            return Err(refused.clone());
        }
        if (pad.mute && ask.edges.is_some()) || (pad.bounces && ask.debounce.is_some()) {
            return Err(Fault::Unsupported("not here".to_owned()));
        }
        assert!(!std::mem::replace(&mut pad.held, true), "line {offset} is taken twice");
        (pad.number, pad.broken) = (0, None);
        pad.queue.clear();
        Ok(Box::new(Wire { bench: self.clone(), offset }))
    }

    fn output(&mut self, offset: u32, active_low: bool) -> Result<Box<dyn Switched>, Fault> {
        let mut state = self.state();
        state.driven.push(offset);
        let pad = state.lines.get_mut(&offset).expect("it was listed");
        if let Some(refused) = &pad.refused {
            return Err(refused.clone());
        }
        drop(state);
        let pin = Pin { bench: self.clone(), offset };
        Lamp::new(pin, active_low).map(|lamp| Box::new(lamp) as Box<dyn Switched>).map_err(|never| match never {})
    }

    fn converter(&mut self, device: &Device) -> Result<Box<dyn Converter>, Fault> {
        let mut state = self.state();
        state.opened += 1;
        match state.volts.get(&*device.name) {
            Some(Err(fault @ Fault::Missing(_))) => Err(fault.clone()),
            Some(_) => Ok(Box::new(Meter { bench: self.clone(), name: device.name.to_string() })),
            None => Err(Fault::Missing("there is no such bus".to_owned())),
        }
    }
}

struct Wire {
    bench: Bench,
    offset: u32,
}

impl hardware::Input for Wire {
    fn level(&self) -> Result<bool, Fault> {
        let state = self.bench.state();
        let pad = &state.lines[&self.offset];
        pad.broken.clone().map_or(Ok(pad.level), Err)
    }

    fn poll_edges(&mut self, context: &mut Context<'_>, edges: &mut Vec<Edge>) -> Poll<Result<(), Fault>> {
        let mut state = self.bench.state();
        let pad = state.lines.get_mut(&self.offset).expect("it is there");
        let told = !pad.queue.is_empty();
        edges.extend(pad.queue.drain(..)); // what came before it broke is still there
        if let Some(broken) = &pad.broken {
            return Poll::Ready(Err(broken.clone()));
        }
        if !told {
            pad.waker = Some(context.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.bench.pad(self.offset, |pad| pad.held = false);
    }
}

/// A pin of embedded-hal's, to be a lamp's.
struct Pin {
    bench: Bench,
    offset: u32,
}

impl embedded_hal::digital::ErrorType for Pin {
    type Error = Infallible;
}

impl embedded_hal::digital::OutputPin for Pin {
    fn set_low(&mut self) -> Result<(), Infallible> {
        self.bench.pad(self.offset, |pad| pad.lit = Some(false));
        Ok(())
    }

    fn set_high(&mut self) -> Result<(), Infallible> {
        self.bench.pad(self.offset, |pad| pad.lit = Some(true));
        Ok(())
    }
}

struct Meter {
    bench: Bench,
    name: String,
}

impl Converter for Meter {
    fn volts(&mut self, pins: Pins, _: Range) -> Result<f64, Fault> {
        let jam = self.bench.state().jam.take();
        jam.map(|jam| jam.recv());
        let volts = self.bench.state().volts[&self.name].clone()?;
        let Pins::Single(input) = pins else { panic!("single ones here") };
        Ok(volts + f64::from(input))
    }
}

fn input(id: u32, line: u32, setup: Setup, count: Option<Edges>) -> Input {
    Input { id: TagId(id), name: format!("in-{id}").into(), line: Line::Offset(line), setup, count }
}

/// Tags numbered from 0, each on its line.
fn config(inputs: &[(u32, Option<Edges>)]) -> Config {
    let inputs = (0..).zip(inputs).map(|(id, (line, count))| input(id, *line, Setup::default(), *count)).collect();
    let station = Station { name: "press-1".into(), poll: Duration::from_secs(1), inputs, channels: Vec::new() };
    Config { chip: "/dev/gpiochip0".into(), stations: vec![station], outputs: Vec::new(), devices: Vec::new() }
}

fn debounced(debounce: u64) -> Config {
    let mut config = config(&[]);
    let setup = Setup { debounce: Duration::from_millis(debounce), ..Setup::default() };
    config.stations[0].inputs = vec![input(0, 4, setup, None), input(1, 4, setup, Some(Edges::Rising))];
    config
}

fn metered(names: &[&str]) -> Config {
    let mut config = config(&[(4, None)]);
    let device = |name: &&str| Device {
        name: (*name).into(),
        bus: Bus::I2c("/dev/i2c-1".into(), 0x48),
        model: Model::Ads1115,
        reference: 0.0,
    };
    config.devices = names.iter().map(device).collect();
    let channel =
        |(id, device, input)| Channel { id: TagId(id), device, pins: Pins::Single(input), range: Range::default() };
    config.stations[0].channels = (0..names.len())
        .flat_map(|at| [(at, 0), (at, 1)])
        .zip(1..)
        .map(|((at, pin), id)| channel((id, at, pin)))
        .collect();
    config
}

/// What the driver tells, with a deadline.
struct Inlet {
    batches: mpsc::Receiver<Batch>,
    readings: VecDeque<Reading>,
    losses: Vec<Loss>,
}

impl Inlet {
    async fn next(&mut self) -> Reading {
        while self.readings.is_empty() {
            let batch =
                timeout(Duration::from_secs(3_600), self.batches.recv()).await.expect("in time").expect("a batch");
            self.readings.extend(batch.readings);
            self.losses.extend(batch.losses);
        }
        self.readings.pop_front().expect("just looked")
    }

    /// The next one of a tag: its value, and its source time in milliseconds.
    async fn of(&mut self, tag: u32) -> (Value, i64) {
        loop {
            let reading = self.next().await;
            if reading.tag == TagId(tag) {
                return (reading.value, reading.source_time.0 / MS);
            }
        }
    }

    /// The next bad reading of a tag.
    async fn bad(&mut self, tag: u32) -> Reading {
        loop {
            let reading = self.next().await;
            if reading.tag == TagId(tag) && reading.validity.is_bad() {
                return reading;
            }
        }
    }
}

fn outlet() -> (Outlet, Inlet) {
    let (batches, inlet) = mpsc::channel(16);
    let outlet = Outlet::new(batches, Arc::new(watch::Sender::new(LinkState::new(Time::now()))));
    (outlet, Inlet { batches: inlet, readings: VecDeque::new(), losses: Vec::new() })
}

/// Runs `client` for as long as `script` lasts.
async fn during<T>(client: &mut Client, script: impl AsyncFnOnce(&mut Inlet) -> T) -> T {
    let (outlet, mut inlet) = outlet();
    client.connect().await.expect("it connects");
    tokio::select! {
        error = client.run(&outlet) => panic!("the link broke: {error}"),
        done = script(&mut inlet) => done,
    }
}

fn own(validity: Validity) -> Option<OwnStatus> {
    match validity {
        Validity::Bad(Status::Own(own)) => Some(own),
        _ => None,
    }
}

#[tokio::test(start_paused = true)]
async fn the_level_is_told_at_connect_and_then_each_change_with_the_kernels_time() {
    let bench = Bench::with(&[4, 7]);
    bench.pad(7, |pad| pad.level = true);
    let mut client = bench.client(config(&[(4, None), (7, None)]));
    during(&mut client, async |inlet| {
        let first = [inlet.next().await, inlet.next().await];
        assert_eq!(
            first.map(|reading| (reading.tag, reading.value)),
            [(TagId(0), Value::Bool(false)), (TagId(1), Value::Bool(true))]
        );
        bench.edge(4, true, 5_000);
        bench.edge(7, true, 5_500); // nothing new
        bench.edge(7, false, 6_000);
        assert_eq!(inlet.of(0).await, (Value::Bool(true), 5_000));
        assert_eq!(inlet.of(1).await, (Value::Bool(false), 6_000));
        assert!(inlet.losses.is_empty());
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn parts_count_up_from_zero_and_on_over_a_lost_link() {
    let bench = Bench::with(&[4, 5, 6]);
    let kinds = [(4, Some(Edges::Rising)), (5, Some(Edges::Falling)), (6, Some(Edges::Both))];
    let mut client = bench.client(config(&kinds));
    during(&mut client, async |inlet| {
        for tag in 0..3 {
            assert_eq!(inlet.of(tag).await.0, Value::Int(0));
        }
        bench.edge(4, true, 10);
        bench.edge(4, true, 30);
        assert_eq!((inlet.of(0).await, inlet.of(0).await), ((Value::Int(1), 10), (Value::Int(2), 30)));
        bench.edge(5, false, 40);
        assert_eq!(inlet.of(1).await, (Value::Int(1), 40));
        bench.edge(6, true, 50);
        bench.edge(6, false, 60);
        assert_eq!((inlet.of(2).await, inlet.of(2).await), ((Value::Int(1), 50), (Value::Int(2), 60)));
    })
    .await;
    let asked: Vec<_> = bench.state().asked.iter().map(|(line, ask)| (*line, ask.edges)).collect();
    assert_eq!(asked, kinds, "the kernel tells no edge that nobody counts");
    client.close().await;
    during(&mut client, async |inlet| {
        assert_eq!(inlet.of(0).await.0, Value::Int(2));
        bench.edge(4, true, 70);
        assert_eq!(inlet.of(0).await, (Value::Int(3), 70));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_state_and_a_count_share_a_line() {
    let bench = Bench::with(&[4]);
    let mut client = bench.client(config(&[(4, None), (4, Some(Edges::Rising))]));
    during(&mut client, async |inlet| {
        bench.edge(4, true, 10);
        bench.edge(4, false, 20);
        bench.edge(4, true, 30);
        let mut told = Vec::new();
        for _ in 0..7 {
            let reading = inlet.next().await;
            told.push((reading.tag.0, reading.value));
        }
        let (on, off) = (Value::Bool(true), Value::Bool(false));
        let expected = [
            (0, off.clone()),
            (1, Value::Int(0)),
            (0, on.clone()),
            (1, Value::Int(1)),
            (0, off),
            (0, on),
            (1, Value::Int(2)),
        ];
        assert_eq!(told, expected);
    })
    .await;
    assert_eq!(bench.state().asked.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn edges_that_found_the_queue_full_are_a_loss_with_their_number() {
    let bench = Bench::with(&[4, 5]);
    let mut client = bench.client(config(&[(4, Some(Edges::Rising)), (5, None)]));
    during(&mut client, async |inlet| {
        bench.edge(4, true, 10);
        bench.pad(4, |pad| pad.number += 7);
        bench.edge(4, true, 90);
        assert_eq!(inlet.of(0).await.0, Value::Int(0));
        assert_eq!(inlet.of(0).await, (Value::Int(1), 10));
        assert_eq!(inlet.of(0).await, (Value::Int(9), 90), "the kernel's numbers count the parts");
        // From the first on: the kernel counts from 1.
        bench.pad(5, |pad| pad.number = 2);
        bench.edge(5, true, 100);
        assert_eq!(inlet.of(1).await, (Value::Bool(true), 100));
        let losses: Vec<_> = inlet.losses.iter().map(|loss| (&*loss.source, loss.count, loss.to.0 / MS)).collect();
        assert_eq!(losses, [("press-1", 7, 90), ("press-1", 2, 100)]);
        assert_eq!(inlet.losses[0].from.0 / MS, 10);
        assert!(inlet.losses[0].reason.contains("are counted") && !inlet.losses[1].reason.contains("are counted"));
        // Numbers wrap round without a gap.
        bench.pad(5, |pad| pad.number = u32::MAX - 1);
        bench.edge(5, false, 110);
        bench.edge(5, true, 120);
        assert_eq!((inlet.of(1).await.1, inlet.of(1).await.1), (110, 120));
        assert_eq!(inlet.losses.len(), 2, "{:?}", inlet.losses);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn the_kernel_debounces_where_it_can() {
    let bench = Bench::with(&[4]);
    let mut client = bench.client(debounced(5));
    during(&mut client, async |inlet| {
        bench.edge(4, true, 105);
        assert_eq!(inlet.of(0).await.0, Value::Bool(false));
        assert_eq!(inlet.of(0).await, (Value::Bool(true), 105));
        assert_eq!(inlet.of(1).await, (Value::Int(1), 105));
    })
    .await;
    let asked: Vec<_> = bench.state().asked.iter().map(|(_, ask)| (ask.edges, ask.debounce)).collect();
    assert_eq!(asked, [(Some(Edges::Both), Some(Duration::from_millis(5)))]);
}

#[tokio::test(start_paused = true)]
async fn where_it_cannot_gemba_debounces_its_edges() {
    let bench = Bench::with(&[4]);
    bench.pad(4, |pad| pad.bounces = true);
    let mut client = bench.client(debounced(5));
    during(&mut client, async |inlet| {
        for (level, at) in [(true, 100), (false, 101), (true, 102), (false, 200), (true, 201), (false, 202)] {
            bench.edge(4, level, at);
        }
        assert_eq!((inlet.of(0).await.0, inlet.of(1).await.0), (Value::Bool(false), Value::Int(0)));
        assert_eq!(inlet.of(0).await, (Value::Bool(true), 107));
        assert_eq!(inlet.of(1).await, (Value::Int(1), 107));
        assert_eq!(inlet.of(0).await, (Value::Bool(false), 207), "told without another edge");
    })
    .await;
    let asked: Vec<_> = bench.state().asked.iter().map(|(_, ask)| (ask.edges, ask.debounce)).collect();
    assert_eq!(asked, [(Some(Edges::Both), Some(Duration::from_millis(5))), (Some(Edges::Both), None)]);
}

#[tokio::test(start_paused = true)]
async fn a_chip_without_interrupts_is_looked_at() {
    let bench = Bench::with(&[4, 5]);
    bench.pad(4, |pad| pad.mute = true);
    bench.pad(5, |pad| pad.mute = true);
    let mut client = bench.client(config(&[(4, None), (5, Some(Edges::Rising))]));
    during(&mut client, async |inlet| {
        assert_eq!((inlet.of(0).await.0, inlet.of(1).await.0), (Value::Bool(false), Value::Int(0)));
        for count in 1..4 {
            bench.pad(4, |pad| pad.level = count % 2 == 1);
            assert_eq!(inlet.of(0).await.0, Value::Bool(count % 2 == 1));
            bench.pad(5, |pad| pad.level = true);
            assert_eq!(inlet.of(1).await.0, Value::Int(count));
            bench.pad(5, |pad| pad.level = false);
            tokio::time::sleep(Duration::from_secs(2)).await; // until it was looked at once more; the clock is the test's
        }
    })
    .await;
    assert_eq!(bench.state().asked.last().expect("asked").1.edges, None);
}

#[tokio::test(start_paused = true)]
async fn a_line_that_cannot_be_had_is_bad_alone_and_tried_again() {
    let bench = Bench::with(&[4, 5]);
    bench.pad(5, |pad| pad.refused = Some(Fault::Busy("line 5 is taken by `spi0 CS0`".to_owned())));
    let mut config = config(&[(4, None), (5, None), (99, None)]);
    config.stations[0].inputs.push(Input { line: Line::Name("DOOR".into()), ..input(3, 0, Setup::default(), None) });
    let mut client = bench.client(config);
    during(&mut client, async |inlet| {
        assert_eq!(inlet.of(0).await.0, Value::Bool(false));
        for tag in 1..4 {
            assert_eq!(own(inlet.bad(tag).await.validity), Some(OwnStatus::Refused));
        }
        bench.edge(4, true, 10);
        assert_eq!(inlet.of(0).await, (Value::Bool(true), 10));
        bench.pad(5, |pad| pad.refused = None);
        assert_eq!(inlet.of(1).await.0, Value::Bool(false));
        bench.edge(5, true, 20);
        assert_eq!(inlet.of(1).await, (Value::Bool(true), 20));
        bench.pad(99, |pad| pad.name = "DOOR".to_owned());
    })
    .await;
}

#[tokio::test]
async fn nothing_to_be_had_is_no_link_and_says_why() {
    let bench = Bench::with(&[4]);
    let failed = async |config: Config| bench.client(config).connect().await.expect_err("no link");
    let missing = failed(config(&[(9, None)])).await;
    assert!(matches!(&missing, LinkError::Unreachable(why) if why.contains("no line 9")), "{missing}");
    let mut called = config(&[(0, None)]);
    called.stations[0].inputs[0].line = Line::Name("DOOR".into());
    let missing = failed(called).await;
    assert!(missing.to_string().contains("no line of the chip is called `DOOR`"), "{missing}");
    bench.pad(4, |pad| pad.refused = Some(Fault::Busy("line 4 is taken by `button`".to_owned())));
    let busy = failed(config(&[(4, None)])).await;
    assert!(matches!(&busy, LinkError::Refused(why) if why.contains("`button`")), "{busy}");
    bench.state().gone = Some(Fault::Forbidden("who runs gemba must be in the group `gpio`".to_owned()));
    let forbidden = failed(config(&[(4, None)])).await;
    assert!(matches!(&forbidden, LinkError::Refused(why) if why.contains("group `gpio`")), "{forbidden}");
    bench.client(config(&[])).connect().await.expect("nothing is wanted of it");
}

#[tokio::test]
async fn two_lines_of_one_name_must_be_told_apart() {
    let bench = Bench::with(&[4, 5]);
    bench.pad(4, |pad| pad.name = "NC".to_owned());
    bench.pad(5, |pad| pad.name = "NC".to_owned());
    let mut config = config(&[(0, None)]);
    config.stations[0].inputs[0].line = Line::Name("NC".into());
    let error = bench.client(config).connect().await.expect_err("which one?").to_string();
    assert!(error.contains("several lines are called `NC`: write one of [4, 5]"), "{error}");
}

/// The kernel would say only that gemba has it.
#[tokio::test(start_paused = true)]
async fn a_line_that_is_named_in_two_ways_says_by_whom() {
    let bench = Bench::with(&[4, 5]);
    let mut config = config(&[(4, None), (5, None)]);
    let named = |id| Input { line: Line::Name("GPIO4".into()), ..input(id, 0, Setup::default(), None) };
    let second = Station { name: "press-2".into(), inputs: vec![named(2)], ..config.stations[0].clone() };
    config.stations.push(second);
    let lines = Lines::of(&mut bench.clone(), &lines::users(&config.stations, &[]));
    let fault = lines.find(&Line::Name("GPIO4".into())).expect_err("it is line 4");
    let why = "line `GPIO4` (tag `in-2` of press-2) is the same as line 4 (tag `in-0` of press-1): name it in one way";
    assert_eq!(fault, Fault::Busy(why.to_owned()));
    assert_eq!(lines.find(&Line::Offset(4)), Ok(4), "who names it first has it");
    assert_eq!(lines.find(&Line::Name("GPIO5".into())), Ok(5), "nobody else's");

    let mut client = bench.client(config.clone());
    during(&mut client, async |inlet| {
        assert_eq!(inlet.of(0).await.0, Value::Bool(false));
        assert_eq!(own(inlet.bad(2).await.validity), Some(OwnStatus::Refused));
    })
    .await;
    drop(client);
    assert_eq!(bench.state().asked.iter().filter(|(line, _)| *line == 4).count(), 1, "the kernel is not asked");

    // An output that is an input as well is not driven.
    config.stations.truncate(1);
    config.outputs = vec![Output { name: "lamp".into(), line: Line::Name("GPIO5".into()), active_low: false }];
    bench.client(config.clone()).connect().await.expect("the inputs are there");
    assert!(bench.state().driven.is_empty());
    let lines = Lines::of(&mut bench.clone(), &lines::users(&config.stations, &config.outputs));
    let fault = lines.find(&config.outputs[0].line).expect_err("an input").to_string();
    assert!(fault.contains("output `lamp`") && fault.contains("tag `in-1` of press-1"), "{fault}");
}

#[tokio::test(start_paused = true)]
async fn a_line_that_fails_is_bad_alone_and_comes_back() {
    let bench = Bench::with(&[4, 5]);
    let mut client = bench.client(config(&[(4, None), (5, Some(Edges::Rising))]));
    during(&mut client, async |inlet| {
        bench.edge(5, true, 10);
        bench.pad(4, |pad| pad.broken = Some(Fault::NoAnswer("the expander is gone".to_owned())));
        let bad = inlet.bad(0).await;
        assert_eq!(own(bad.validity), Some(OwnStatus::NoAnswer));
        assert!(bad.source_time <= bad.received_time);
        bench.edge(5, true, 20);
        while inlet.of(1).await != (Value::Int(2), 20) {}
        assert_eq!(inlet.of(0).await.0, Value::Bool(false), "taken anew");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_chip_that_is_pulled_out_is_a_lost_link() {
    let bench = Bench::with(&[4, 5]);
    let mut client = bench.client(config(&[(4, None), (5, None)]));
    client.connect().await.expect("it connects");
    let gone = Fault::Missing("/dev/gpiochip2 is not there".to_owned());
    bench.state().gone = Some(gone.clone());
    bench.pad(4, |pad| pad.broken = Some(gone.clone()));
    bench.pad(5, |pad| pad.broken = Some(gone));
    let (outlet, _inlet) = outlet();
    let error = timeout(Duration::from_secs(60), client.run(&outlet)).await.expect("it notices");
    assert!(matches!(&error, LinkError::Broken(why) if why.contains("/dev/gpiochip2")), "{error}");
    assert!(client.connect().await.is_err());
    bench.state().gone = None;
    client.connect().await.expect("it is back");
}

#[tokio::test(start_paused = true)]
async fn parts_that_were_made_until_the_chip_went_are_counted() {
    let bench = Bench::with(&[4]);
    let mut client = bench.client(config(&[(4, Some(Edges::Rising))]));
    client.connect().await.expect("it connects");
    let gone = Fault::Missing("/dev/gpiochip2 is not there".to_owned());
    bench.edge(4, true, 10);
    bench.state().gone = Some(gone.clone());
    bench.pad(4, |pad| pad.broken = Some(gone));
    let (outlet, mut inlet) = outlet();
    timeout(Duration::from_secs(60), client.run(&outlet)).await.expect("it notices");
    assert_eq!(inlet.of(0).await.0, Value::Int(0));
    assert_eq!(inlet.of(0).await, (Value::Int(1), 10));
}

#[tokio::test(start_paused = true)]
async fn a_lost_interrupt_is_found_and_an_edge_on_its_way_is_not_one() {
    let bench = Bench::with(&[4]);
    let mut client = bench.client(config(&[(4, None)]));
    during(&mut client, async |inlet| {
        assert_eq!(inlet.of(0).await.0, Value::Bool(false));
        bench.pad(4, |pad| pad.level = true);
        let began = Instant::now();
        assert_eq!(inlet.of(0).await.0, Value::Bool(true));
        assert!(began.elapsed() > Duration::from_secs(1), "not at the first look");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn outputs_are_off_until_they_are_asked_for_and_off_after_a_stop() {
    let bench = Bench::with(&[4, 22, 23, 24]);
    bench.pad(24, |pad| pad.refused = Some(Fault::Busy("taken".to_owned())));
    let mut config = config(&[(4, None)]);
    let output = |name: &str, line, active_low| Output { name: name.into(), line: Line::Offset(line), active_low };
    config.outputs = vec![output("red", 22, false), output("green", 23, true), output("horn", 24, false)];
    let mut client = bench.client(config);
    let switches = client.switches();
    assert_eq!(switches.iter().map(Switch::name).collect::<Vec<_>>(), ["red", "green", "horn"]);
    assert_eq!(bench.lit(22), None, "not touched before the link is up");
    let until = async |line, lit| {
        while bench.lit(line) != Some(lit) {
            tokio::task::yield_now().await;
        }
    };
    during(&mut client, async |inlet| {
        assert_eq!((bench.lit(22), bench.lit(23)), (Some(false), Some(true)), "off");
        assert_eq!(inlet.of(0).await.0, Value::Bool(false));
        switches[0].set(true);
        until(22, true).await;
        switches[1].set(true);
        until(23, false).await;
        switches[2].set(true);
        bench.pad(24, |pad| pad.refused = None);
        while bench.lit(24) != Some(true) {
            tokio::time::sleep(Duration::from_secs(1)).await; // the clock is the test's
        }
        switches[0].set(false);
        until(22, false).await;
        switches[0].set(true);
        until(22, true).await;
    })
    .await;
    client.close().await;
    assert_eq!((bench.lit(22), bench.lit(23), bench.lit(24)), (Some(false), Some(true), Some(false)), "off again");
    // What was asked for holds for the next link.
    during(&mut client, async |_| until(22, true).await).await;
    drop(client);
    assert_eq!(bench.lit(22), Some(false));

    let state = bench.state();
    assert!(state.asked.iter().all(|(line, _)| *line == 4), "an output was asked for as an input");
    assert!(state.driven.iter().all(|line| [22, 23, 24].contains(line)), "an input was asked for as an output");
    assert!(state.driven.len() >= 6);
}

#[tokio::test(start_paused = true)]
async fn a_converter_is_read_and_one_that_fails_is_bad_alone_and_made_anew() {
    let bench = Bench::with(&[4]);
    let nobody = Fault::NoAnswer("nothing answers at this address".to_owned());
    bench.state().volts = [("adc1".to_owned(), Ok(0.5)), ("adc2".to_owned(), Err(nobody.clone()))].into();
    let mut client = bench.client(metered(&["adc1", "adc2"]));
    assert_eq!(client.tags(), (0..5).map(TagId).collect::<Vec<_>>());
    during(&mut client, async |inlet| {
        assert_eq!(own(inlet.bad(3).await.validity), Some(OwnStatus::NoAnswer));
        assert_eq!(own(inlet.bad(4).await.validity), Some(OwnStatus::NoAnswer));
        bench.edge(4, true, 10);
        for tag in [0, 1, 2] {
            loop {
                let value = inlet.of(tag).await.0;
                let expected = [Value::Bool(true), Value::Float(0.5), Value::Float(1.5)][tag as usize].clone();
                if value == expected {
                    break;
                }
            }
        }
        bench.state().volts.insert("adc2".to_owned(), Ok(2.0));
        loop {
            if inlet.of(3).await.0 == Value::Float(2.0) {
                break;
            }
        }
        assert!(bench.state().opened > 2, "made anew");
        // A good one that fails later is bad from its last answer on.
        bench.state().volts.insert("adc1".to_owned(), Err(nobody.clone()));
        let bad = inlet.bad(1).await;
        assert!(bad.source_time < bad.received_time, "{bad:?}");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn each_line_and_converter_has_a_breaker_that_is_told() {
    let bench = Bench::with(&[4, 5]);
    bench.pad(5, |pad| pad.refused = Some(Fault::Missing("taken by somebody else".to_owned())));
    bench.state().volts =
        [("adc1".to_owned(), Ok(0.5)), ("adc2".to_owned(), Err(Fault::NoAnswer("nobody".to_owned())))].into();
    let mut config = metered(&["adc1", "adc2"]);
    config.stations[0].inputs.push(input(9, 5, Setup::default(), None));
    config.outputs = vec![Output { name: "lamp".into(), line: Line::Offset(4), active_low: false }];
    config.stations[0].inputs.remove(0);
    let mut client = bench.client(config);
    client.connect().await.expect("it connects");
    let (outlet, mut inlet) = outlet();
    let told = outlet.clone();
    let device = |name: &str| {
        let devices = told.state().devices;
        devices.into_iter().find(|device| &*device.name == name).unwrap_or_else(|| panic!("{name} is told"))
    };
    let script = async {
        while told.state().devices.is_empty() || device("converter adc2").breaker.turns[1] < 3 {
            inlet.next().await;
        }
        for name in ["input line 5", "converter adc2"] {
            let device = device(name);
            assert_eq!(device.breaker.state, crate::BreakerState::Open, "{name}");
            assert!(device.breaker.turns[2] >= 3 && device.retries >= 2 && device.unanswered >= 3, "{device:?}");
            assert_eq!(device.stations.len(), 1);
        }
        for name in ["output lamp", "converter adc1"] {
            let device = device(name);
            assert_eq!((device.breaker.state, device.unanswered), (crate::BreakerState::Closed, 0), "{name}");
            assert!(device.requests > 0);
        }
        bench.state().volts.insert("adc2".to_owned(), Ok(2.0));
        while device("converter adc2").breaker.state != crate::BreakerState::Closed {
            inlet.next().await;
        }
    };
    tokio::select! {
        error = client.run(&outlet) => panic!("the link broke: {error}"),
        () = script => {}
    }
}

#[tokio::test(start_paused = true)]
async fn converters_need_no_chip_and_lines_need_no_bus() {
    let bench = Bench::with(&[4]);
    bench.state().volts.insert("adc1".to_owned(), Ok(1.0));
    let chipless = Fault::Missing("/dev/gpiochip0 is not there".to_owned());
    bench.state().gone = Some(chipless);
    let mut client = bench.client(metered(&["adc1"]));
    during(&mut client, async |inlet| {
        assert_eq!(own(inlet.bad(0).await.validity), Some(OwnStatus::Refused));
        assert_eq!(inlet.of(2).await.0, Value::Float(2.0));
    })
    .await;
    bench.state().gone = None;
    let mut client = bench.client(metered(&["adc9"]));
    during(&mut client, async |inlet| {
        let mut told = [inlet.next().await, inlet.next().await, inlet.next().await];
        told.sort_by_key(|reading| reading.tag);
        assert_eq!(told[0].value, Value::Bool(false));
        assert_eq!(
            told[1..].iter().map(|reading| own(reading.validity)).collect::<Vec<_>>(),
            [Some(OwnStatus::Refused); 2]
        );
    })
    .await;
    bench.state().gone = Some(Fault::Missing("neither".to_owned()));
    assert!(bench.client(metered(&["adc9"])).connect().await.is_err());
}

#[tokio::test(start_paused = true)]
async fn silent_tags_are_looked_at_and_then_taken_anew_and_then_given_up() {
    let bench = Bench::with(&[4, 5]);
    let mut client = bench.client(config(&[(4, None), (5, Some(Edges::Both))]));
    client.connect().await.expect("it connects");
    let (outlet, _inlet) = outlet();
    let stale = |rung| Stale { tags: vec![TagId(1)], rung };
    for (rung, requests) in [(Rung::Look, 2), (Rung::Renew, 3)] {
        let mut batch = Batch::default();
        client.rouse(&stale(rung), &outlet, &mut batch).expect("the link stands");
        let told: Vec<_> = batch.readings.iter().map(|reading| (reading.tag, reading.value.clone())).collect();
        assert_eq!((told, bench.state().asked.len()), (vec![(TagId(1), Value::Int(0))], requests));
    }
    let given_up = client.rouse(&stale(Rung::Reconnect), &outlet, &mut Batch::default());
    assert!(matches!(given_up, Err(LinkError::Silent(_))));
}

#[tokio::test]
async fn a_bus_that_hangs_is_looked_into_told_and_given_up_and_ends_with_data() {
    let bench = Bench::default();
    bench.state().volts = [("adc1".to_owned(), Ok(0.5))].into();
    let mut config = metered(&["adc1"]);
    config.stations[0].inputs.clear();
    config.stations[0].poll = Duration::from_secs(3_600);
    let options = treat::Options { max_age: Some(Duration::from_millis(300)), ..treat::Options::default() };
    let treated = [1, 2].map(|tag| (TagId(tag), options.clone())).into();
    let station = treat::Station { name: "press-1".into(), tags: 1..3, treated, max_clock_skew: None };
    let (outlet, mut inlet) = outlet();
    let outlet = outlet.treating(treat::Treatment::new(&treat::Plan { stations: vec![station] }));
    let (told, stop) = (outlet.clone(), tokio_util::sync::CancellationToken::new());
    let link = crate::supervisor::supervise(bench.client(config), "chip".into(), outlet, stop.clone());
    let link = tokio::spawn(link);

    assert_eq!(inlet.of(1).await.0, Value::Float(0.5));
    // Read once an hour, and asked for at half its age.
    bench.state().volts.insert("adc1".to_owned(), Ok(0.7));
    while inlet.of(1).await.0 != Value::Float(0.7) {}
    assert_eq!(told.state().connects, 1);

    let (hold, jam) = std::sync::mpsc::channel();
    bench.state().jam = Some(jam);
    let mut said = Vec::new();
    while said.last() != Some(&Some(OwnStatus::LinkLost)) {
        said.push(own(inlet.bad(1).await.validity));
    }
    assert_eq!(said, [Some(OwnStatus::Stale), Some(OwnStatus::LinkLost)]);
    // Over the new link it is read by another thread, whatever became of the one that hangs.
    while inlet.of(1).await.0 != Value::Float(0.7) {}
    assert_eq!(told.state().connects, 2);
    drop(hold);
    stop.cancel();
    link.await.expect("it ends well");
}

#[tokio::test]
async fn a_probe_tells_each_tag_once_in_order_and_lets_go() {
    let bench = Bench::with(&[4, 5]);
    bench.pad(4, |pad| pad.level = true);
    bench.state().volts.insert("adc1".to_owned(), Ok(0.25));
    let mut config = metered(&["adc1"]);
    config.stations[0]
        .inputs
        .extend([input(3, 5, Setup::default(), Some(Edges::Rising)), input(4, 77, Setup::default(), None)]);
    let mut client = bench.client(config);
    let mut told = Vec::new();
    client.probe(&mut |probed| told.push(probed)).await.expect("a link");
    let values: Vec<_> = told.iter().map(|probed| (probed.reading.tag.0, probed.reading.value.clone())).collect();
    let expected = [
        (0, Value::Bool(true)),
        (1, Value::Float(0.25)),
        (2, Value::Float(1.25)),
        (3, Value::Int(0)),
        (4, Value::Null),
    ];
    assert_eq!(values, expected);
    assert_eq!(told[3].otherwise, [("without `count`".to_owned(), Value::Bool(false))]);
    assert!(bench.state().lines.values().all(|pad| !pad.held), "let go");
}

#[tokio::test]
async fn a_browse_touches_no_line_and_says_when_there_is_no_chip() {
    let bench = Bench::with(&[4, 5]);
    bench.state().volts.insert("adc1".to_owned(), Ok(0.25));
    let scope = Scope { station: "press-1".into(), listen: Duration::ZERO, most: 5 };
    let mut found: Vec<Offered> = Vec::new();
    bench.client(metered(&["adc1"])).browse(&scope, &mut |offered| found.push(offered)).await.expect("a chip");
    let names: Vec<_> = found.iter().map(|offered| (&*offered.name, &*offered.options[0].1)).collect();
    let expected =
        [("GPIO4", "GPIO4"), ("GPIO5", "GPIO5"), ("adc1_0", "adc1:0"), ("adc1_1", "adc1:1"), ("adc1_2", "adc1:2")];
    assert_eq!(names, expected, "and no more than asked for");
    assert_eq!((found[0].value.clone(), found[3].value.clone()), (None, Some(Value::Float(1.25))));
    assert!(bench.state().asked.is_empty());
    bench.state().gone = Some(Fault::Missing("/dev/gpiochip0 is not there; there is no GPIO chip at all".to_owned()));
    let error = bench.client(config(&[])).browse(&scope, &mut |_| panic!("nothing")).await.expect_err("no chip");
    assert!(error.to_string().contains("no GPIO chip at all"), "{error}");
    let error = bench.client(metered(&["adc9"])).browse(&scope, &mut |_| panic!("nothing")).await.expect_err("neither");
    assert!(error.to_string().contains("no GPIO chip at all"), "{error}");
    let mut found = 0;
    bench.client(metered(&["adc1"])).browse(&scope, &mut |_| found += 1).await.expect("a converter");
    assert_eq!(found, 4);
}

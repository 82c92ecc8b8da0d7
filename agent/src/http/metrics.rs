//! `/metrics`: the Prometheus text format, 0.0.4.
//!
//! Names follow the OTel-to-Prometheus translation rules: dots become underscores, unit `1` is
//! `_ratio`, `s` is `_seconds`, a monotonic sum ends in `_total`, units in braces are dropped. A
//! figure that cannot be known, a bad reading and a text are no sample at all: absent, never 0.

use std::fmt::Write;

use gemba_drivers::{LinkPhase, Time};

use super::View;
use super::kpi::seconds;
use crate::record::{Beside, CycleHistogram, Figures, Sums};
use crate::snapshot::UpstreamStatus;
use crate::telemetry::metric::{self, Metric, Number};

/// Everything, family by family.
pub(super) fn text(view: &View) -> String {
    let mut page = Page::default();
    tags(&mut page, view);
    ratios(&mut page, view);
    beside(&mut page, view);
    line(&mut page, view);
    sums(&mut page, view);
    super::watched_metrics::write(&mut page, view);
    agent(&mut page, view);
    gateway(&mut page, view);
    page.text
}

fn tags(page: &mut Page, view: &View) {
    page.family("factory_tag_value", Kind::Gauge, "The tag's last value, in its unit.", |family| {
        for station in &view.snapshot.stations {
            for tag in &station.tags {
                let Some(value) = tag.value.as_f64().filter(|_| !tag.validity.is_bad()) else { continue };
                let unit = tag.unit.as_deref().unwrap_or_default();
                let labels = [("factory_station", &*station.name), ("factory_tag", &tag.name), ("unit", unit)];
                family.sample(&labels, value);
            }
        }
    });
}

fn ratios(page: &mut Page, view: &View) {
    type Pick = fn(&Figures) -> Option<f64>;
    const RATIOS: [(&str, &str, Pick); 7] = [
        ("factory_oee_ratio", "Availability x performance x quality of the shift so far.", |of| of.oee),
        ("factory_availability_ratio", "Run time over planned production time of the shift so far.", |of| {
            of.availability
        }),
        ("factory_performance_ratio", "Ideal time of the parts made over run time of the shift so far.", |of| {
            of.performance
        }),
        ("factory_quality_ratio", "Good parts over all parts of the shift so far.", |of| of.quality),
        ("factory_coverage_ratio", "Known planned time over planned time of the shift so far.", |of| of.coverage),
        ("factory_yield_first_pass_ratio", "Parts good at the first pass over all parts of the shift so far.", |of| {
            of.first_pass_yield
        }),
        ("factory_defect_rate_ratio", "Defects per part of the shift so far.", |of| of.defect_rate),
    ];
    for (name, help, pick) in RATIOS {
        page.family(name, Kind::Gauge, help, |family| {
            for station in &view.snapshot.stations {
                let Some(value) = station.kpi.as_ref().and_then(|kpi| pick(&kpi.figures)) else { continue };
                let shift = station.shift.as_deref().unwrap_or_default();
                family.sample(&[("factory_station", &station.name), ("factory_shift", shift)], value);
            }
        });
    }
}

/// What stands beside the ratios of a shift, where it is known.
fn beside(page: &mut Page, view: &View) {
    type Pick = fn(&Beside) -> Option<f64>;
    const FIGURES: [(&str, &str, Pick); 10] = [
        ("factory_teep_ratio", "OEE of the shift so far over all its time that is known.", |of| of.teep),
        ("factory_production_target", "Parts that should have been made in the shift by now.", |of| of.target),
        ("factory_production_actual", "Parts that were made in the shift so far.", |of| of.actual),
        ("factory_maintenance_failures", "Failures that began in the shift so far.", |of| of.failures.map(whole)),
        ("factory_maintenance_mtbf_seconds", "Mean operating time between the failures of the shift so far.", |of| {
            of.mtbf
        }),
        ("factory_maintenance_mttr_seconds", "Mean time to restoration in the shift so far.", |of| of.mttr),
        ("factory_maintenance_corrective_ratio", "Corrective over all maintenance time of the shift so far.", |of| {
            of.corrective_ratio
        }),
        ("factory_part_energy_joules", "Energy by the parts made in the shift so far.", |of| of.energy_per_part),
        ("factory_good_part_energy_joules", "Energy by the good parts made in the shift so far.", |of| {
            of.energy_per_good_part
        }),
        ("factory_good_part_cost", "Cost by the good parts made in the shift so far, in the line's currency.", |of| {
            of.cost_per_good_part
        }),
    ];
    let told: Vec<_> =
        view.snapshot.stations.iter().filter_map(|of| Some((of, Beside::from(of.kpi.as_ref()?)))).collect();
    for (name, help, pick) in FIGURES {
        page.family(name, Kind::Gauge, help, |family| {
            for (station, of) in &told {
                let Some(value) = pick(of) else { continue };
                let shift = station.shift.as_deref().unwrap_or_default();
                family.sample(&[("factory_station", &station.name), ("factory_shift", shift)], value);
            }
        });
    }
}

/// The line as a whole, where it has a flow.
fn line(page: &mut Page, view: &View) {
    let Some(flow) = &view.snapshot.flow else { return };
    let help = "Good ideal time of the line over its planned time of the shift so far.";
    page.family("factory_line_oee_ratio", Kind::Gauge, help, |family| {
        let labels = [("factory_shift", &*flow.shift), ("factory_line_by", flow.by.word())];
        flow.oee.into_iter().for_each(|oee| family.sample(&labels, oee));
    });
    let help = "Product of the stations' first-pass yields of the shift so far.";
    page.family("factory_yield_rolled_throughput_ratio", Kind::Gauge, help, |family| {
        flow.rolled_yield.iter().for_each(|of| family.sample(&[("factory_shift", &flow.shift)], of.value));
    });
}

fn sums(page: &mut Page, view: &View) {
    let stations = || {
        let stations = view.snapshot.stations.iter();
        stations.filter_map(|station| station.sums.as_ref().map(|(_, sums)| (station, sums)))
    };
    page.family("factory_parts_total", Kind::Counter, "Parts made since the station was first seen.", |family| {
        for (station, sums) in stations() {
            for (disposition, count) in [("good", sums.good), ("reject", sums.reject), ("rework", sums.rework)] {
                let Some(count) = count else { continue };
                let labels = [("factory_station", &*station.name), ("factory_part_disposition", disposition)];
                family.sample(&labels, count);
            }
        }
    });
    let help = "Time in each state since the station was first seen.";
    page.family("factory_state_time_seconds_total", Kind::Counter, help, |family| {
        for (station, sums) in stations() {
            for &(state, nanos) in &sums.state_time {
                let labels = [("factory_station", &*station.name), ("factory_state", state.word())];
                family.sample(&labels, seconds(nanos));
            }
        }
    });
    let help = "Downtime by reason since the station was first seen.";
    page.family("factory_downtime_seconds_total", Kind::Counter, help, |family| {
        for (station, sums) in stations() {
            for (reason, planned, nanos) in &sums.downtime {
                let planned = if *planned { "true" } else { "false" };
                let labels =
                    [("factory_station", &*station.name), ("factory_reason", reason), ("factory_planned", planned)];
                family.sample(&labels, seconds(*nanos));
            }
        }
    });
    type Pick = fn(&Sums) -> Option<f64>;
    const SUMS: [(&str, &str, Pick); 3] = [
        ("factory_energy_joules_total", "Energy taken since the station was first seen.", |of| of.energy),
        ("factory_idle_energy_joules_total", "Of it, while the machine was known not to run.", |of| of.idle_energy),
        ("factory_startup_rejects_total", "Of the rejected parts those of start-ups.", |of| of.startup_reject),
    ];
    for (name, help, pick) in SUMS {
        page.family(name, Kind::Counter, help, |family| {
            for (station, sum) in stations().filter_map(|(station, sums)| Some((station, pick(sums)?))) {
                family.sample(&[("factory_station", &*station.name)], sum);
            }
        });
    }
    let help = "Cycle times since the station was first seen.";
    page.family("factory_cycle_duration_seconds", Kind::Histogram, help, |family| {
        for (station, sums) in stations().filter(|(_, sums)| sums.cycle.count > 0) {
            histogram(family, &[("factory_station", &station.name)], &sums.cycle);
        }
    });
}

/// Upper bounds of the classic buckets, as powers of two: 1/16 s to 1,024 s.
///
/// Powers of two are bounds of every base-2 exponential histogram of scale 0 or finer, so nothing is
/// guessed when its buckets are added up.
const LE: std::ops::RangeInclusive<i32> = -4..=10;

/// Writes an exponential histogram in classic buckets.
///
/// At a scale below 0 (cycle times spread over more than 2^160) a bucket can straddle a bound; it
/// then counts only from the first bound that holds all of it, so no bucket ever says too much.
pub(super) fn histogram(family: &mut Family<'_>, labels: &[(&str, &str)], cycle: &CycleHistogram) {
    let mut seen = cycle.zero_count;
    let mut buckets = cycle.buckets.iter().zip(i64::from(cycle.offset)..).peekable();
    for power in LE {
        while let Some((count, _)) = buckets.next_if(|&(_, index)| ends_within(index, cycle.scale, power)) {
            seen += count;
        }
        let le = f64::from(power).exp2().to_string();
        family.part("_bucket", &[labels, &[("le", &le)]].concat(), whole(seen));
    }
    let all = seen + buckets.map(|(count, _)| count).sum::<u64>();
    family.part("_bucket", &[labels, &[("le", "+Inf")]].concat(), whole(all));
    family.part("_sum", labels, cycle.sum);
    family.part("_count", labels, whole(all));
}

/// Whether bucket `index`, which ends at `2^((index + 1) · 2^-scale)`, ends at or below `2^power`.
fn ends_within(index: i64, scale: i32, power: i32) -> bool {
    let (end, power) = (i128::from(index) + 1, i128::from(power));
    let shift = scale.unsigned_abs().min(64);
    if scale >= 0 { end <= power << shift } else { end << shift <= power }
}

fn agent(page: &mut Page, view: &View) {
    let snapshot = &*view.snapshot;
    page.family("gemba_readings_total", Kind::Counter, "Readings taken in since the agent started.", |family| {
        family.sample(&[("gemba_reading_kind", "number")], whole(snapshot.intake.numbers));
        family.sample(&[("gemba_reading_kind", "text")], whole(snapshot.intake.texts));
    });
    let help = "Changes of text tags since the agent started.";
    page.counter("gemba_text_changes_total", help, whole(snapshot.intake.text_changes));
    page.family("gemba_losses_total", Kind::Counter, "Readings and messages lost, by source and reason.", |family| {
        for (source, reason, count) in &snapshot.loss_totals {
            family.sample(&[("gemba_loss_source", source), ("gemba_loss_reason", reason)], whole(*count));
        }
    });
    page.family("gemba_link_connected", Kind::Gauge, "1 while the link of the station is up, else 0.", |family| {
        for station in &snapshot.stations {
            let Some(link) = view.links.get(station.link) else { continue };
            let up = link.phase == LinkPhase::Connected;
            family.sample(&[("factory_station", &station.name)], f64::from(u8::from(up)));
        }
    });

    let spool = &snapshot.spool;
    page.gauge("gemba_spool_records", "Records that upstream does not have yet.", Some(whole(spool.records)));
    page.gauge("gemba_spool_readings", "Readings that upstream does not have yet.", Some(whole(spool.readings)));
    page.gauge("gemba_spool_bytes", "Size of the spool on disk.", Some(whole(spool.bytes)));
    let help = "When the oldest record that upstream does not have was stored.";
    page.gauge("gemba_spool_oldest_timestamp_seconds", help, spool.oldest.map(unix));
    let help = "Readings dropped for want of room.";
    page.counter("gemba_spool_dropped_readings_total", help, whole(spool.dropped));
    let storing = f64::from(u8::from(spool.error.is_none()));
    page.gauge("gemba_spool_storing", "1 while readings can be stored, else 0.", Some(storing));

    let upstream = &view.upstream;
    let connected = match upstream.status {
        UpstreamStatus::None | UpstreamStatus::Connecting => None,
        UpstreamStatus::Connected => Some(1.0),
        UpstreamStatus::Disconnected | UpstreamStatus::Blocked => Some(0.0),
    };
    let help = "1 while upstream accepts what is sent, else 0; absent until the first answer.";
    page.gauge("gemba_upstream_connected", help, connected);
    let help = "When upstream last accepted something.";
    page.gauge("gemba_upstream_last_success_timestamp_seconds", help, upstream.last_success.map(unix));
    let help = "Requests sent again since the agent started.";
    page.counter("gemba_upstream_retries_total", help, whole(upstream.retries));
    let help = "Points and log records that upstream refused for good.";
    page.counter("gemba_upstream_rejected_total", help, whole(upstream.rejected));

    page.family("gemba_build_info", Kind::Gauge, "What runs where; always 1.", |family| {
        let identity = &view.identity;
        let labels =
            [("version", &*identity.version), ("factory_site", &identity.site), ("factory_line", &identity.line)];
        family.sample(&labels, 1.0);
    });
    page.gauge("gemba_uptime_seconds", "Time since the agent started.", Some(view.uptime.as_secs_f64()));
}

/// The machine below, and what the agent counts of itself.
fn gateway(page: &mut Page, view: &View) {
    for metric in view.gateway.metrics.iter() {
        let name = translated(metric);
        // A gauge of that name cannot be told from a histogram's count: promtool refuses it.
        if name.ends_with("_count") {
            continue;
        }
        let kind = match metric.kind {
            metric::Kind::Gauge | metric::Kind::Level => Kind::Gauge,
            metric::Kind::Count(_) => Kind::Counter,
            metric::Kind::Histogram(_) => Kind::Histogram,
        };
        page.family(&name, kind, metric.about, |family| {
            for point in &metric.points {
                let names: Vec<_> = point.attributes.iter().map(|(name, _)| name.replace('.', "_")).collect();
                let values = point.attributes.iter().map(|(_, value)| &**value);
                let labels: Vec<(&str, &str)> = names.iter().map(String::as_str).zip(values).collect();
                match &point.value {
                    Number::Whole(value) => family.sample(&labels, whole(*value)),
                    Number::Real(value) => family.sample(&labels, *value),
                    Number::Buckets { bounds, counts, sum } => buckets(family, &labels, bounds, counts, *sum),
                }
            }
        });
    }
}

/// By the rules at the head of this file.
fn translated(metric: &Metric) -> String {
    let mut name = metric.name.replace('.', "_");
    name += match (metric.unit, metric.kind) {
        ("1", metric::Kind::Gauge) => "_ratio",
        ("s", _) => "_seconds",
        ("By", _) => "_bytes",
        ("Cel", _) => "_celsius",
        _ => "",
    };
    if matches!(metric.kind, metric::Kind::Count(_)) {
        name += "_total";
    }
    name
}

fn buckets(family: &mut Family<'_>, labels: &[(&str, &str)], bounds: &[f64], counts: &[u64], sum: f64) {
    let bounds = bounds.iter().map(f64::to_string).chain(["+Inf".to_owned()]);
    let mut seen = 0;
    for (le, count) in bounds.zip(counts) {
        seen += count;
        let labels: Vec<_> = labels.iter().copied().chain([("le", le.as_str())]).collect();
        family.part("_bucket", &labels, whole(seen));
    }
    family.part("_sum", labels, sum);
    family.part("_count", labels, whole(seen));
}

#[expect(clippy::cast_precision_loss, reason = "Prometheus has doubles only; counts stay below 2^53")]
pub(super) fn whole(count: u64) -> f64 {
    count as f64
}

fn unix(time: Time) -> f64 {
    seconds(time.0)
}

/// Of the types of the format, those we use.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    Gauge,
    Counter,
    Histogram,
}

/// The page as far as it is written.
#[derive(Default)]
pub(super) struct Page {
    text: String,
}

impl Page {
    /// Writes one family in one piece; nothing when it has no sample.
    pub(super) fn family(&mut self, name: &str, kind: Kind, help: &str, fill: impl FnOnce(&mut Family<'_>)) {
        let start = self.text.len();
        let kind = match kind {
            Kind::Gauge => "gauge",
            Kind::Counter => "counter",
            Kind::Histogram => "histogram",
        };
        put(&mut self.text, format_args!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
        let head = self.text.len();
        fill(&mut Family { text: &mut self.text, name });
        if self.text.len() == head {
            self.text.truncate(start);
        }
    }

    fn gauge(&mut self, name: &'static str, help: &str, value: Option<f64>) {
        self.family(name, Kind::Gauge, help, |family| value.into_iter().for_each(|value| family.sample(&[], value)));
    }

    fn counter(&mut self, name: &'static str, help: &str, value: f64) {
        self.family(name, Kind::Counter, help, |family| family.sample(&[], value));
    }
}

/// A family that is being written.
pub(super) struct Family<'a> {
    text: &'a mut String,
    name: &'a str,
}

impl Family<'_> {
    pub(super) fn sample(&mut self, labels: &[(&str, &str)], value: f64) {
        self.part("", labels, value);
    }

    /// A sample whose name is the family's with a suffix. `value` is finite throughout.
    fn part(&mut self, suffix: &str, labels: &[(&str, &str)], value: f64) {
        self.text.push_str(self.name);
        self.text.push_str(suffix);
        for (place, (name, value)) in labels.iter().enumerate() {
            self.text.push(if place == 0 { '{' } else { ',' });
            self.text.push_str(name);
            self.text.push_str("=\"");
            escape(self.text, value);
            self.text.push('"');
        }
        if !labels.is_empty() {
            self.text.push('}');
        }
        put(self.text, format_args!(" {value}\n"));
    }
}

fn escape(text: &mut String, value: &str) {
    for letter in value.chars() {
        match letter {
            '\\' => text.push_str("\\\\"),
            '"' => text.push_str("\\\""),
            '\n' => text.push_str("\\n"),
            other => text.push(other),
        }
    }
}

fn put(text: &mut String, what: std::fmt::Arguments<'_>) {
    text.write_fmt(what).expect("writing to memory does not fail");
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{line, snapshot};
    use super::super::promlint::{self, Exposition};
    use super::*;

    fn parsed(view: &View) -> Exposition {
        let text = text(view);
        promlint::parse(&text).unwrap_or_else(|fault| panic!("{fault}\n{text}"))
    }

    #[test]
    fn the_whole_page() {
        let view = line();
        parsed(&view);
        insta::assert_snapshot!(text(&view));
    }

    #[test]
    fn what_is_not_known_is_absent() {
        let page = parsed(&line());
        let tag = |station, tag, unit| {
            page.value("factory_tag_value", &[("factory_station", station), ("factory_tag", tag), ("unit", unit)])
        };
        assert_eq!(tag("printer-1", "total", "{part}"), Some(19271.0));
        assert_eq!(tag("printer-1", "door_closed", ""), Some(1.0));
        assert_eq!(tag("aoi-1", "score", "1"), Some(0.875), "uncertain, and a value");
        assert_eq!(tag("aoi-1", "reject", "{part}"), None, "bad");
        assert_eq!(tag("aoi-1", "state", ""), None, "text");
        let ratio = |name| page.value(name, &[("factory_station", "aoi-1"), ("factory_shift", "early")]);
        assert_eq!((ratio("factory_oee_ratio"), ratio("factory_coverage_ratio")), (None, Some(0.25)));
        let parts = |disposition| {
            let labels = [("factory_station", "aoi-1"), ("factory_part_disposition", disposition)];
            page.value("factory_parts_total", &labels)
        };
        assert_eq!((parts("good"), parts("reject")), (Some(0.5), None), "nothing counts rejects there");
    }

    #[test]
    fn what_a_configuration_asks_for_is_there_where_it_is_known() {
        use crate::model::{FlowView, LineBy, quality::Ratio};
        use crate::snapshot::{CostView, EnergyView, Maintenance};
        let mut view = line();
        let snapshot = snapshot(&mut view);
        snapshot.flow = Some(FlowView {
            shift: "early".into(),
            from: Time(0),
            to: Time(1),
            by: LineBy::Weighted,
            oee: Some(0.5),
            good: None,
            good_ideal_ns: None,
            planned_ns: 1,
            coverage: Some(1.0),
            rolled_yield: Ratio::of(3.0, 4.0),
            waits: Vec::new(),
        });
        let [printer, aoi, ..] = &mut snapshot.stations[..] else { panic!("two") };
        let energy = EnergyView { joules: 100.0, idle_joules: 10.0, per_part: Some(5.0), per_good_part: None };
        let kpi = printer.kpi.as_mut().expect("figures");
        (kpi.energy, kpi.cost) = (Some(energy), Some(CostView { cost: 2.0, per_good_part: Some(0.25) }));
        let (_, sums) = printer.sums.as_mut().expect("sums");
        (sums.idle_energy, sums.startup_reject) = (Some(10.0), Some(3.0));
        let unknown = aoi.kpi.as_mut().expect("figures");
        (unknown.planned_ns, unknown.maintenance) = (0, Maintenance::default());
        let page = parsed(&view);
        let of = |name| page.value(name, &[("factory_station", "printer-1"), ("factory_shift", "early")]);
        assert_eq!((of("factory_part_energy_joules"), of("factory_good_part_energy_joules")), (Some(5.0), None));
        assert_eq!(of("factory_good_part_cost"), Some(0.25));
        let sum = |name| page.value(name, &[("factory_station", "printer-1")]);
        assert_eq!(sum("factory_idle_energy_joules_total"), Some(10.0));
        assert_eq!(sum("factory_startup_rejects_total"), Some(3.0));
        let oee = [("factory_shift", "early"), ("factory_line_by", "weighted")];
        assert_eq!(page.value("factory_line_oee_ratio", &oee), Some(0.5));
        let rolled = page.value("factory_yield_rolled_throughput_ratio", &[("factory_shift", "early")]);
        assert_eq!(rolled, Some(0.75));
        let failures = [("factory_station", "aoi-1"), ("factory_shift", "early")];
        assert_eq!(page.value("factory_maintenance_failures", &failures), None, "no state is known");
    }

    #[test]
    fn a_fresh_agent_has_few_families_and_no_empty_one() {
        let mut view = line();
        *snapshot(&mut view) = crate::snapshot::Snapshot::default();
        view.upstream.status = UpstreamStatus::Connecting;
        let page = parsed(&view);
        assert_eq!(page.value("gemba_spool_records", &[]), Some(0.0));
        assert_eq!(page.value("gemba_upstream_connected", &[]), None);
        assert_eq!(page.value("gemba_spool_oldest_timestamp_seconds", &[]), None);
        assert!(page.families.iter().all(|family| family.starts_with("gemba_")), "{:?}", page.families);
    }

    #[test]
    fn the_gateway_is_told_by_the_translation() {
        use crate::telemetry::metric::{Kind, Point};
        let mut view = line();
        let cpu =
            Metric::one("system.cpu.utilization", "1", "Share of all cores at work.", Kind::Gauge, Number::Real(0.25));
        let usage = ("system.memory.usage", "By", "Memory by what it is used for.");
        let states = [("used".into(), Number::Whole(3)), ("free".into(), Number::Whole(4))];
        let memory = Metric::by(usage, Kind::Level, "system.memory.state", states);
        let attributes = vec![("network.interface.name", "eth0".into()), ("network.io.direction", "receive".into())];
        let traffic = Metric {
            name: "system.network.io",
            unit: "By",
            about: "Bytes that went over each interface but the loopback.",
            kind: Kind::Count(Time(0)),
            points: vec![Point { attributes, value: Number::Whole(9) }],
        };
        let files = Number::Whole(20);
        let files = Metric::one("process.unix.file_descriptor.count", "{file_descriptor}", "Open.", Kind::Level, files);
        let took = Number::Buckets { bounds: &[0.1, 1.0], counts: vec![2, 1, 1], sum: 5.5 };
        let took = Metric::one("gemba.commit.duration", "s", "How long commits took.", Kind::Histogram(Time(0)), took);
        view.gateway.metrics = vec![cpu, memory, traffic, files, took].into();
        let page = parsed(&view);
        assert_eq!(page.value("system_cpu_utilization_ratio", &[]), Some(0.25));
        let memory = |state| page.value("system_memory_usage_bytes", &[("system_memory_state", state)]);
        assert_eq!((memory("used"), memory("free")), (Some(3.0), Some(4.0)));
        let eth0 = [("network_interface_name", "eth0"), ("network_io_direction", "receive")];
        assert_eq!(page.value("system_network_io_bytes_total", &eth0), Some(9.0));
        assert!(!page.families.iter().any(|family| family.ends_with("_count")), "promtool refuses such a gauge");
        let bucket = |le| page.value("gemba_commit_duration_seconds_bucket", &[("le", le)]);
        assert_eq!((bucket("0.1"), bucket("1"), bucket("+Inf")), (Some(2.0), Some(3.0), Some(4.0)));
        assert_eq!(page.value("gemba_commit_duration_seconds_count", &[]), Some(4.0));
    }

    #[test]
    fn labels_are_escaped() {
        let mut view = line();
        snapshot(&mut view).stations[0].name = "a\\b\"c\nd} 1 µ<script>".into();
        let page = parsed(&view);
        let labels = [("factory_station", "a\\b\"c\nd} 1 µ<script>"), ("factory_shift", "early")];
        assert_eq!(page.value("factory_oee_ratio", &labels), Some(0.1 + 0.2));
    }

    /// What the classic buckets hold, without the zeros before and the repeats after.
    fn buckets(cycle: &CycleHistogram) -> Vec<(String, f64)> {
        let mut view = line();
        let (_, sums) = snapshot(&mut view).stations[0].sums.as_mut().expect("the printer has sums");
        sums.cycle = cycle.clone();
        let page = parsed(&view);
        let bounds = LE.map(|power| f64::from(power).exp2().to_string()).chain(["+Inf".to_owned()]);
        let value = |le: &str| {
            let labels = [("factory_station", "printer-1"), ("le", le)];
            page.value("factory_cycle_duration_seconds_bucket", &labels).expect("every bucket is there")
        };
        let mut held: Vec<_> = bounds.map(|le| (le.clone(), value(&le))).collect();
        held.dedup_by(|next, before| next.1 == before.1);
        held
    }

    fn cycle(scale: i32, offset: i32, buckets: &[u64]) -> CycleHistogram {
        let count = buckets.iter().sum();
        CycleHistogram { scale, offset, buckets: buckets.to_vec(), count, sum: 1.0, ..CycleHistogram::default() }
    }

    #[test]
    fn exponential_buckets_add_up_exactly_at_powers_of_two() {
        let held = |cycle| buckets(&cycle).into_iter().map(|(le, count)| format!("{le}:{count}")).collect::<Vec<_>>();
        // scale 0: (0.5, 1], (1, 2], (2, 4]
        assert_eq!(held(cycle(0, -1, &[1, 2, 4])), ["0.0625:0", "1:1", "2:3", "4:7"]);
        // scale 3, eight buckets to the doubling: index 7 ends at 2, index 8 begins there
        assert_eq!(held(cycle(3, 7, &[1, 1])), ["0.0625:0", "2:1", "4:2"]);
        // the finest scale, one bucket that ends at 1 exactly
        assert_eq!(held(cycle(20, -1, &[5])), ["0.0625:0", "1:5"]);
        // all below the first bound, all above the last
        assert_eq!(held(cycle(0, -9, &[3])), ["0.0625:3"]);
        assert_eq!(held(cycle(0, 10, &[3])), ["0.0625:0", "+Inf:3"]);
        let zeros = CycleHistogram { zero_count: 2, count: 3, ..cycle(0, 0, &[1]) };
        assert_eq!(held(zeros), ["0.0625:2", "2:3"]);
    }

    #[test]
    fn a_coarse_bucket_counts_where_all_of_it_fits() {
        // scale -1: index 0 is (1, 4], index 1 (4, 16]
        let held = buckets(&cycle(-1, 0, &[1, 2]));
        assert_eq!(held, [("0.0625".to_owned(), 0.0), ("4".to_owned(), 1.0), ("16".to_owned(), 3.0)]);
        // scale -10: the one bucket ends at 2^1024
        assert_eq!(buckets(&cycle(-10, 0, &[9])), [("0.0625".to_owned(), 0.0), ("+Inf".to_owned(), 9.0)]);
    }

    proptest::proptest! {
        #[test]
        fn any_histogram_is_cumulative_and_complete(
            scale in -10..=20,
            offset in -2000..2000,
            counts in proptest::collection::vec(0_u64..1000, 1..160),
            zeros in 1_u64..9,
        ) {
            let held = cycle(scale, offset, &counts);
            let all = held.count + zeros;
            // `parsed` checks order, sums and agreement with the count
            let page = buckets(&CycleHistogram { zero_count: zeros, count: all, ..held });
            proptest::prop_assert_eq!(page.last().map(|(_, count)| *count), Some(whole(all)));
        }
    }
}

//! What watches stations, on `/metrics`: anomalies, control charts, inspections. The table of what is there stands in
//! [`crate::otlp`]; the distribution of scores is not here, since a classic histogram needs a sum, which nobody knows.

use std::collections::BTreeMap;

use super::View;
use super::metrics::{Kind, Page, histogram, whole};
use crate::model::anomaly::Severity;
use crate::model::inspection::{InspectionFigures, ProductFigures};
use crate::model::quality::Ratio;
use crate::model::spc::{Capability, Window};
use crate::record::InspectionSums;
use crate::snapshot::StationView;

pub(super) fn write(page: &mut Page, view: &View) {
    anomalies(page, &view.snapshot.stations);
    charts(page, &view.snapshot.stations);
    inspections(page, &view.snapshot.stations);
    rates(page, &view.snapshot.stations);
}

fn anomalies(page: &mut Page, stations: &[StationView]) {
    let all = || {
        let all = stations.iter().flat_map(|station| station.anomalies.iter().map(move |of| (station, of)));
        all.filter(|(_, detector)| detector.since.is_some())
    };
    let help = "Anomalies detected; one that got worse counts in both severities.";
    page.family("factory_anomalies_total", Kind::Counter, help, |family| {
        for (station, detector) in all() {
            for severity in Severity::ALL {
                let labels = [
                    ("factory_station", &*station.name),
                    ("factory_anomaly_detector", &detector.name),
                    ("factory_anomaly_severity", severity.word()),
                ];
                family.sample(&labels, whole(detector.counts.of(severity)));
            }
        }
    });
    let help = "From the beginning of anomalies to their detection.";
    page.family("factory_anomaly_detection_latency_seconds", Kind::Histogram, help, |family| {
        for (station, detector) in all().filter(|(_, detector)| detector.latency.count > 0) {
            let labels = [("factory_station", &*station.name), ("factory_anomaly_detector", &detector.name)];
            histogram(family, &labels, &detector.latency);
        }
    });
    let help = "Share of the anomalies judged by people that were none.";
    // The unit's suffix is not said twice.
    page.family("factory_anomaly_false_positive_ratio", Kind::Gauge, help, |family| {
        for (station, detector) in all() {
            let Some(share) = detector.verdicts.false_positives() else { continue };
            let labels = [("factory_station", &*station.name), ("factory_anomaly_detector", &detector.name)];
            family.sample(&labels, share);
        }
    });
}

fn charts(page: &mut Page, stations: &[StationView]) {
    type Pick = fn(&Capability) -> Option<f64>;
    const INDICES: [(&str, &str, Pick); 5] = [
        ("factory_spc_cp_ratio", "Tolerance over the spread within subgroups.", |of| of.cp),
        ("factory_spc_cpk_ratio", "The nearer side of the tolerance over the spread within subgroups.", |of| of.cpk),
        ("factory_spc_pp_ratio", "Tolerance over the spread of all readings.", |of| of.pp),
        ("factory_spc_ppk_ratio", "The nearer side of the tolerance over the spread of all readings.", |of| of.ppk),
        ("factory_spc_cpm_ratio", "Tolerance over the spread round the target.", |of| of.cpm),
    ];
    let all = || stations.iter().flat_map(|station| station.charts.iter().map(move |chart| (station, chart)));
    let help = "Rules of control charts that were broken.";
    page.family("factory_spc_violations_total", Kind::Counter, help, |family| {
        for (station, chart) in all() {
            for (rule, count) in &chart.broken {
                let labels = [
                    ("factory_station", &*station.name),
                    ("factory_spc_chart", &chart.chart.name),
                    ("factory_spc_rule", rule.word()),
                ];
                family.sample(&labels, whole(*count));
            }
        }
    });
    for (name, help, pick) in INDICES {
        page.family(name, Kind::Gauge, help, |family| {
            for (station, chart) in all() {
                let since = chart.chart.capability.iter().find(|of| of.window == Window::SinceLimits);
                let Some(index) = since.and_then(pick) else { continue };
                let labels = [("factory_station", &*station.name), ("factory_spc_chart", &chart.chart.name)];
                family.sample(&labels, index);
            }
        });
    }
}

fn inspections(page: &mut Page, stations: &[StationView]) {
    let all = || {
        let sums = |station: &StationView| station.inspection.as_ref().and_then(|of| of.sums.clone());
        stations.iter().filter_map(move |station| Some((&*station.name, sums(station)?)))
    };
    page.family("factory_inspections_total", Kind::Counter, "Inspections by verdict.", |family| {
        for (station, InspectionSums { pass, fail, review, unknown, .. }) in all() {
            for (verdict, count) in [("pass", pass), ("fail", fail), ("review", review), ("unknown", unknown)] {
                let labels = [("factory_station", station), ("factory_inspection_verdict", verdict)];
                family.sample(&labels, whole(count));
            }
        }
    });
    page.family("factory_defects_total", Kind::Counter, "Defects by code.", |family| {
        for station in stations {
            let found = station.inspection.iter().filter_map(|of| of.sums.as_ref()).flat_map(|sums| &sums.defects);
            let by_hand = station.sums.iter().flat_map(|(_, sums)| &sums.defects);
            let mut codes = BTreeMap::<&str, u64>::new();
            found.chain(by_hand).for_each(|(code, count)| *codes.entry(code).or_default() += count);
            for (code, count) in codes {
                family.sample(&[("factory_station", &*station.name), ("factory_defect_code", code)], whole(count));
            }
        }
    });
    let help = "How long the inference of inspections took.";
    page.family("factory_inspection_inference_duration_seconds", Kind::Histogram, help, |family| {
        for (station, sums) in all().filter(|(_, sums)| sums.latency.count > 0) {
            histogram(family, &[("factory_station", station)], &sums.latency);
        }
    });
    page.family("factory_inspection_queue", Kind::Gauge, "Units that wait for inspection or review.", |family| {
        for (station, sums) in all() {
            sums.queue.into_iter().for_each(|queue| family.sample(&[("factory_station", station)], queue));
        }
    });
}

fn rates(page: &mut Page, stations: &[StationView]) {
    type Pick = fn(&InspectionFigures) -> Option<Ratio>;
    const RATES: [(&str, &str, Pick); 9] = [
        ("factory_inspection_passed_ratio", "Passed, of those whose verdict is known.", |of| of.passed),
        ("factory_inspection_first_pass_ratio", "Passed at the first inspection of the unit.", |of| {
            of.first_pass_yield
        }),
        ("factory_inspection_manual_review_ratio", "Looked at by a person, of those seen.", |of| of.manual_review),
        ("factory_inspection_false_reject_ratio", "Rejected, of the good units with a label.", |of| of.false_reject),
        ("factory_inspection_escape_ratio", "Passed, of the defective units with a label.", |of| of.escape),
        ("factory_inspection_accuracy_ratio", "Decided rightly, of those with a label.", |of| of.accuracy),
        ("factory_inspection_precision_ratio", "Defective, of the rejected units with a label.", |of| of.precision),
        ("factory_inspection_recall_ratio", "Rejected, of the defective units with a label.", |of| of.recall),
        ("factory_inspection_f1_ratio", "Harmonic mean of precision and recall.", |of| of.f1),
    ];
    let all = || {
        let shifts = stations.iter().filter_map(|station| station.inspection.as_ref()?.shift.as_ref());
        shifts.map(|shift| ([("factory_station", &*shift.station), ("factory_shift", &*shift.shift)], shift))
    };
    let help = "Inspections an hour, of the shift so far.";
    page.family("factory_inspection_rate_per_hour", Kind::Gauge, help, |family| {
        for (labels, shift) in all() {
            shift.figures.per_hour.into_iter().for_each(|rate| family.sample(&labels, rate));
        }
    });
    for (name, help, pick) in RATES {
        page.family(name, Kind::Gauge, help, |family| {
            for (labels, shift) in all() {
                pick(&shift.figures).into_iter().for_each(|rate| family.sample(&labels, rate.value));
            }
        });
    }
    type PickOf = fn(&ProductFigures) -> Option<Ratio>;
    const OF_PRODUCTS: [(&str, &str, Pick, PickOf); 3] = [
        ("factory_inspection_dpu_ratio", "Defects per unit.", |of| of.dpu, |of| of.dpu),
        ("factory_inspection_dpmo", "Defects per million opportunities.", |of| of.dpmo, |of| of.dpmo),
        ("factory_inspection_ppm", "Rejected units in a million.", |of| of.ppm, |of| of.ppm),
    ];
    for (name, help, pick, pick_of) in OF_PRODUCTS {
        page.family(name, Kind::Gauge, help, |family| {
            for (labels, shift) in all() {
                pick(&shift.figures).into_iter().for_each(|rate| family.sample(&labels, rate.value));
                for of in &shift.figures.products {
                    let (Some(product), Some(rate)) = (&of.product, pick_of(of)) else { continue };
                    let labels: Vec<_> = labels.into_iter().chain([("factory_product", &**product)]).collect();
                    family.sample(&labels, rate.value);
                }
            }
        });
    }
    page.family("factory_inspection_labelled", Kind::Gauge, "Decisions that a review has labelled.", |family| {
        for (labels, shift) in all() {
            family.sample(&labels, whole(u64::try_from(shift.tally.labels.n()).unwrap_or_default()));
        }
    });
    for (name, help) in [
        ("factory_inspection_drift_psi_ratio", "Population stability index of the scores."),
        ("factory_inspection_drift_ks_ratio", "Kolmogorov-Smirnov distance of the scores from their baseline."),
    ] {
        page.family(name, Kind::Gauge, help, |family| {
            for (labels, shift) in all() {
                for drift in &shift.figures.drift {
                    let distance = if name.contains("psi") { drift.psi } else { drift.ks };
                    let Some(distance) = distance else { continue };
                    let version = drift.version.as_deref();
                    let version = version.map(|version| ("factory_inspection_model_version", version));
                    let labels: Vec<_> = labels.into_iter().chain(version).collect();
                    family.sample(&labels, distance);
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{line, watched};
    use super::super::metrics::text;
    use super::super::promlint;

    #[test]
    fn what_watches_a_station() {
        let text = text(&watched());
        promlint::parse(&text).unwrap_or_else(|fault| panic!("{fault}\n{text}"));
        let of = |line: &&str| line.contains("\"scale-1\"") && !line.starts_with("factory_tag");
        insta::assert_snapshot!(text.lines().filter(of).collect::<Vec<_>>().join("\n"));
    }

    #[test]
    fn where_nothing_is_watched_nothing_is_said() {
        let text = text(&line());
        let words = ["factory_anomal", "factory_spc", "factory_inspection", "factory_defects"];
        assert!(!words.iter().any(|word| text.contains(word)), "{text}");
    }
}

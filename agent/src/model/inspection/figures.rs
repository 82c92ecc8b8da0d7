//! What a sum of inspections says.

use std::sync::Arc;
use std::time::Duration;

use crate::model::drift::{self, Cells};
use crate::model::inspection::{BaselineSpec, GIVEN, Inspection, InspectionSpec, InspectionTally, OfProduct, Queue};
use crate::model::quality::{self, Ratio};
use crate::record::CycleHistogram;

/// The figures of some stretch of time. Each share says how many it speaks for; `None` is "cannot be known".
#[derive(Clone, Debug, PartialEq)]
pub struct InspectionFigures {
    /// How many inspections there were.
    pub inspections: u64,
    /// Inspections an hour; none of no time.
    pub per_hour: Option<f64>,
    /// Passed, of those whose verdict is known.
    pub passed: Option<Ratio>,
    /// Passed at the first inspection, of the units that were inspected for the first time.
    pub first_pass_yield: Option<Ratio>,
    /// Looked at by a person, of those that were seen: the machine was not sure, or a review came.
    pub manual_review: Option<Ratio>,
    /// Good units that were rejected, of the good ones with a label. Units that nobody reviews have none.
    pub false_reject: Option<Ratio>,
    /// Defective units that were passed, of the defective ones with a label.
    pub escape: Option<Ratio>,
    /// Decisions that were right, of those with a label.
    pub accuracy: Option<Ratio>,
    /// Rejects that were right, of those with a label.
    pub precision: Option<Ratio>,
    /// Defective units that were rejected, of those with a label.
    pub recall: Option<Ratio>,
    /// Harmonic mean of precision and recall.
    pub f1: Option<Ratio>,
    /// Defects per unit, of inspections that were seen; none where no tag tells defects.
    pub dpu: Option<Ratio>,
    /// Defects per million opportunities, all products together; none where the opportunities of some unit are not known.
    pub dpmo: Option<Ratio>,
    /// The sigma level of that ([`quality::sigma_level`]).
    pub sigma_level: Option<f64>,
    /// Rejected units in a million, of those whose verdict is known.
    pub ppm: Option<Ratio>,
    /// The same by product, those that were inspected; none where the configuration names no product.
    pub products: Vec<ProductFigures>,
    /// How often each defect was told, the most frequent first.
    pub defects: Vec<(Arc<str>, u64)>,
    /// The scores; none where no tag tells them.
    pub scores: Option<Histogram>,
    /// How long the inference took, in seconds.
    pub latency: CycleHistogram,
    /// How many waited.
    pub queue: Option<Queue>,
    /// How far the scores lie from their baseline, for each version of the model that has one, oldest baseline first.
    pub drift: Vec<Drift>,
}

/// What inspections say of one product.
#[derive(Clone, Debug, PartialEq)]
pub struct ProductFigures {
    /// Its name; `None` where it is not known, or not configured.
    pub product: Option<Arc<str>>,
    /// How many inspections were seen.
    pub inspections: u64,
    /// Defects per unit; none where no tag tells defects.
    pub dpu: Option<Ratio>,
    /// Defects per million opportunities; none where those are not known.
    pub dpmo: Option<Ratio>,
    /// Rejected units in a million, of those whose verdict is known.
    pub ppm: Option<Ratio>,
}

/// A histogram as OTLP has it: bin `i` holds what is above edge `i - 1` and not above edge `i`.
#[derive(Clone, Debug, PartialEq)]
pub struct Histogram {
    /// Ascending.
    pub edges: Vec<f64>,
    /// One more than edges.
    pub counts: Vec<u64>,
}

/// How far scores lie from their baseline.
#[derive(Clone, Debug, PartialEq)]
pub struct Drift {
    /// The version of the model; none where the baseline is for all versions, or no tag tells one.
    pub version: Option<Arc<str>>,
    /// How many scores were compared.
    pub n: u64,
    /// [`drift::psi`]
    pub psi: Option<f64>,
    /// [`drift::ks`]; none with a baseline that is given, since that has bins only.
    pub ks: Option<f64>,
}

impl Inspection {
    /// What `tally` says, a sum over `span` of what [`Inspection::observe`] told.
    #[must_use]
    pub fn figures(&self, spec: &InspectionSpec, tally: &InspectionTally, span: Duration) -> InspectionFigures {
        let labels = &tally.labels;
        let mut defects: Vec<_> = tally.defects.iter().map(|(code, count)| (code.clone(), *count)).collect();
        defects.sort_by(|(_, a), (_, b)| b.cmp(a)); // stable: of equal ones in order of their names
        let all_defects = defects.iter().map(|(_, count)| count).sum();
        let dpmo = spec.defects.as_ref().and_then(|_| dpmo(spec, tally));
        InspectionFigures {
            inspections: tally.inspections,
            per_hour: Ratio::of(3600.0 * real(tally.inspections), span.as_secs_f64()).map(|rate| rate.value),
            passed: share(tally.pass, tally.judged()),
            first_pass_yield: quality::first_pass_yield(real(tally.first_pass), real(tally.first)),
            manual_review: share(tally.manual, tally.seen),
            false_reject: labels.false_reject_rate(),
            escape: labels.escape_rate(),
            accuracy: labels.accuracy(),
            precision: labels.precision(),
            recall: labels.recall(),
            f1: labels.f1(),
            dpu: spec.defects.as_ref().and_then(|_| quality::dpu(real(all_defects), real(tally.seen))),
            sigma_level: dpmo.and_then(|dpmo| quality::sigma_level(dpmo.value)),
            dpmo,
            ppm: quality::ppm(real(tally.fail), real(tally.judged())),
            products: products(spec, tally),
            defects,
            scores: spec.score.as_ref().map(|score| histogram(&score.edges, &tally.scores)),
            latency: tally.latency.histogram(),
            queue: tally.queue,
            drift: tally.drift.iter().filter_map(|(number, cells)| self.drift(spec, *number, cells)).collect(),
        }
    }

    /// None of a baseline that is forgotten, or was of another configuration.
    fn drift(&self, spec: &InspectionSpec, number: u32, cells: &Cells) -> Option<Drift> {
        let n = cells.n();
        if let BaselineSpec::Given { edges, shares } = &spec.baseline {
            let now: Vec<_> = histogram(edges, cells).counts.into_iter().map(real).collect();
            let psi = drift::psi(shares, &now);
            return (number == GIVEN).then_some(Drift { version: None, n, psi, ks: None });
        }
        let version = self.versions.find(number)?;
        Some(Drift {
            version: Some(version.name.clone()).filter(|name| !name.is_empty()),
            n,
            psi: version.sample.psi(cells),
            ks: version.sample.ks(cells),
        })
    }
}

/// Of several products the opportunities of each of their units count (ISO 13053-1:2011, 7: a total of opportunities).
fn dpmo(spec: &InspectionSpec, tally: &InspectionTally) -> Option<Ratio> {
    let (mut defects, mut opportunities) = (0.0, 0.0);
    for (product, of) in &tally.products {
        defects += real(of.defects);
        opportunities += real(of.seen) * spec.opportunities(product.as_deref())?;
    }
    quality::dpmo(defects, opportunities, 1.0)
}

fn products(spec: &InspectionSpec, tally: &InspectionTally) -> Vec<ProductFigures> {
    let figures = |(product, of): (&Option<Arc<str>>, &OfProduct)| {
        let (defects, seen) = (real(of.defects), real(of.seen));
        let told = spec.defects.is_some();
        let opportunities = spec.opportunities(product.as_deref()).filter(|_| told);
        ProductFigures {
            product: product.clone(),
            inspections: of.seen,
            dpu: quality::dpu(defects, seen).filter(|_| told),
            dpmo: opportunities.and_then(|opportunities| quality::dpmo(defects, seen, opportunities)),
            ppm: quality::ppm(real(of.fail), real(of.judged)),
        }
    };
    let told_apart = !spec.products.is_empty();
    tally.products.iter().filter(|_| told_apart).map(figures).collect()
}

fn histogram(edges: &[f64], cells: &Cells) -> Histogram {
    let mut counts = vec![0; edges.len() + 1];
    for (cell, count) in cells.iter() {
        counts[usize::from(cell).min(edges.len())] += count;
    }
    Histogram { edges: edges.to_vec(), counts }
}

fn share(part: u64, whole: u64) -> Option<Ratio> {
    Ratio::of(real(part), real(whole))
}

#[expect(clippy::cast_precision_loss, reason = "counts of units, far below 2^53")]
fn real(count: u64) -> f64 {
    count as f64
}

//! What a station works with.

use std::cell::RefCell;
use std::sync::Arc;

use gemba_drivers::Time;
use jiff::tz::TimeZone;

use crate::model::calendar::Slot;
use crate::model::plan::Plan;
use crate::model::timeline::Work;
use crate::model::{Knowledge, OeeSpec, Product, Reason};

/// What a station works with.
#[derive(Clone, Copy, Debug)]
pub struct Setting<'a> {
    /// The station's name.
    pub name: &'a Arc<str>,
    /// What is computed.
    pub spec: &'a OeeSpec,
    /// When it is planned to run.
    pub plan: &'a RefCell<Plan>,
    /// What the whole line knows.
    pub knowledge: &'a Knowledge,
    /// It inspects: then what people reject is told by code with what it finds.
    pub inspects: bool,
}

impl<'a> Setting<'a> {
    /// What is planned at `at`.
    pub fn slot(self, at: Time) -> Slot {
        self.plan.borrow_mut().slot(at).clone()
    }

    /// Of the clock on the plant's wall.
    pub fn zone(self) -> TimeZone {
        self.plan.borrow().zone().clone()
    }

    /// The reason of this code, if the configuration knows it.
    pub fn reason(self, code: &str) -> Option<&'a Reason> {
        self.knowledge.reasons.iter().find(|reason| &*reason.code == code)
    }

    /// Whether it is said of any product what its material costs.
    pub fn prices_material(self) -> bool {
        self.knowledge.products.iter().any(|product| product.material_cost.is_some())
    }

    /// The product that is worked on, if it is known.
    pub fn product(self, work: Option<&Work>) -> Option<&'a Product> {
        let name = work?.product.as_deref()?;
        self.knowledge.products.iter().find(|product| &*product.name == name)
    }
}

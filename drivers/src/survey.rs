//! Looking at a device without running: what its tags say (`gemba check --probe`), what it offers (`gemba browse`).
//!
//! Both make a link of their own and close it again; neither disturbs a gemba that runs beside it.

use std::future::Future;
use std::time::Duration;

use crate::{AnyDriver, LinkError, Reading, Value};

/// What one tag said when it was asked once.
#[derive(Clone, Debug)]
pub struct Probed {
    /// Its value or why there is none, with both times.
    pub reading: Reading,
    /// From the question that it was part of to the answer.
    pub round_trip: Duration,
    /// What the same bytes would be, read otherwise (Modbus: in every plausible word order), by the option that says so.
    pub otherwise: Vec<(String, Value)>,
}

/// Something that a device offers, as a tag of the configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Offered {
    /// A name for the tag: what the device calls it, in characters that a tag's name may have.
    pub name: String,
    /// The options that address it, in the order to write them: `("node", "nsu=urn:fab-2:aoi;s=State")`.
    pub options: Vec<(&'static str, String)>,
    /// UCUM unit, where the device tells it.
    pub unit: Option<String>,
    /// Where it stands and what it is, for people: `Objects/AOI/State, Int32`.
    pub about: String,
    /// What it says now, if it says anything.
    pub value: Option<Value>,
}

/// How far a browse goes.
#[derive(Clone, Debug)]
pub struct Scope {
    /// Which of the link's stations.
    pub station: std::sync::Arc<str>,
    /// How long to listen where a device cannot be asked (MQTT).
    pub listen: Duration,
    /// How much is listed at most.
    pub most: usize,
}

/// A driver that can look around.
pub trait Survey: Send {
    /// Asks once for each tag and tells what came, in order of the configuration.
    ///
    /// # Errors
    /// When there is no link; a tag that is refused is no error but a bad reading.
    fn probe(&mut self, told: &mut (dyn FnMut(Probed) + Send)) -> impl Future<Output = Result<(), LinkError>> + Send;

    /// Lists what a station offers.
    ///
    /// # Errors
    /// When there is no link, or the protocol has no list and the station nothing to search.
    fn browse(
        &mut self,
        scope: &Scope,
        found: &mut (dyn FnMut(Offered) + Send),
    ) -> impl Future<Output = Result<(), LinkError>> + Send;
}

// Without a protocol there is nothing to look at.
#[cfg_attr(
    not(any(feature = "opcua", feature = "modbus", feature = "mqtt", feature = "gpio")),
    expect(unused_variables, reason = "nobody is asked")
)]
impl Survey for AnyDriver {
    async fn probe(&mut self, told: &mut (dyn FnMut(Probed) + Send)) -> Result<(), LinkError> {
        crate::driver::each!(self, driver => driver.probe(told).await)
    }

    async fn browse(&mut self, scope: &Scope, found: &mut (dyn FnMut(Offered) + Send)) -> Result<(), LinkError> {
        crate::driver::each!(self, driver => driver.browse(scope, found).await)
    }
}

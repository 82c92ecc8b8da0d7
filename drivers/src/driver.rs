//! What every driver is.

use std::future::Future;
use std::time::Duration;

use crate::{Outlet, TagId};

/// One link to one device, broker or server. Owned by exactly one [`supervisor`](crate::supervisor) task.
pub trait Driver: Send {
    /// Every tag this link carries; all of them turn bad when it breaks.
    fn tags(&self) -> Vec<TagId>;

    /// Brings the link up, from any state. Bounded by the driver's own timeout.
    fn connect(&mut self) -> impl Future<Output = Result<(), LinkError>> + Send;

    /// Delivers readings until the link breaks, and says why it did.
    /// Dropped in mid-flight at a stop, so it holds nothing across an await that must not be lost.
    fn run(&mut self, outlet: &Outlet) -> impl Future<Output = LinkError> + Send;

    /// Says goodbye, so that the peer keeps no session of ours. Harmless in any state.
    fn close(&mut self) -> impl Future<Output = ()> + Send;
}

/// The registry: every driver there is.
pub enum AnyDriver {
    /// OPC UA client.
    #[cfg(feature = "opcua")]
    Opcua(Box<crate::opcua::Client>),
    /// Modbus client ("master").
    #[cfg(feature = "modbus")]
    Modbus(Box<crate::modbus::Client>),
    /// MQTT subscriber.
    #[cfg(feature = "mqtt")]
    Mqtt(Box<crate::mqtt::Client>),
    /// The gateway's own pins and converters.
    #[cfg(feature = "gpio")]
    Gpio(Box<crate::gpio::Client>),
}

macro_rules! each {
    ($self:ident, $driver:ident => $do:expr) => {
        match $self {
            #[cfg(feature = "opcua")]
            $crate::AnyDriver::Opcua($driver) => $do,
            #[cfg(feature = "modbus")]
            $crate::AnyDriver::Modbus($driver) => $do,
            #[cfg(feature = "mqtt")]
            $crate::AnyDriver::Mqtt($driver) => $do,
            #[cfg(feature = "gpio")]
            $crate::AnyDriver::Gpio($driver) => $do,
            // Without a protocol there is no driver to be.
            #[cfg(not(any(feature = "opcua", feature = "modbus", feature = "mqtt", feature = "gpio")))]
            _ => unreachable!("no driver was built in"),
        }
    };
}
pub(crate) use each;

impl Driver for AnyDriver {
    fn tags(&self) -> Vec<TagId> {
        each!(self, driver => driver.tags())
    }

    async fn connect(&mut self) -> Result<(), LinkError> {
        each!(self, driver => driver.connect().await)
    }

    #[cfg_attr(
        not(any(feature = "opcua", feature = "modbus", feature = "mqtt", feature = "gpio")),
        expect(unused_variables, reason = "nothing delivers")
    )]
    async fn run(&mut self, outlet: &Outlet) -> LinkError {
        each!(self, driver => driver.run(outlet).await)
    }

    async fn close(&mut self) {
        each!(self, driver => driver.close().await);
    }
}

/// Why a link is not up.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LinkError {
    /// Nobody there: a name that does not resolve, a refused connection, no answer in time.
    #[error("unreachable: {0}")]
    Unreachable(String),
    /// The peer is there and does not want us: wrong password, untrusted certificate, unknown endpoint.
    /// Trying again soon will not help.
    #[error("refused: {0}")]
    Refused(String),
    /// It was up and broke.
    #[error("link broke: {0}")]
    Broken(String),
    /// It looks up, and nothing comes.
    #[error("silent for {0:?}")]
    Silent(Duration),
}

impl LinkError {
    /// Whether trying again soon may help. If not, the supervisor goes straight to its longest pause.
    #[must_use]
    pub fn retry_helps(&self) -> bool {
        !matches!(self, Self::Refused(_))
    }
}

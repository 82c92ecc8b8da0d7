//! Readings from the factory floor.
//!
//! A [`Driver`] speaks one protocol over one link and knows nothing of what its readings mean. The
//! [`supervisor`] owns every link: it connects, lets the driver deliver, and after a break tells the
//! outside and tries again. Everything that was read goes as [`Batch`]es into one bounded channel.
//!
//! No driver can write to a device: there is no write call in this crate but for what the configuration names: digital outputs
//! ([`gpio::Switch`]), and Sparkplug nodes that may be asked for a birth.

pub mod batch;
#[cfg(any(feature = "modbus", feature = "gpio"))]
mod beat;
pub mod breaker;
pub mod delivery;
pub mod driver;
pub mod event;
#[cfg(feature = "gpio")]
pub mod gpio;
pub mod link;
#[cfg(feature = "modbus")]
pub mod modbus;
#[cfg(feature = "mqtt")]
pub mod mqtt;
#[cfg(feature = "opcua")]
pub mod opcua;
pub mod outlet;
pub mod reading;
#[cfg(feature = "sim")]
pub mod sim;
pub mod supervisor;
pub mod survey;
pub mod time;
mod trace;
pub mod treat;

pub use batch::{Backfill, Batch, Keep, Loss, Receipt};
pub use breaker::{Breaker, BreakerState, BreakerView, Durations};
pub use delivery::{Deliveries, Delivery};
pub use driver::{AnyDriver, Driver, LinkError};
pub use event::Event;
pub use link::{DeviceState, LinkPhase, LinkState};
pub use outlet::{Outlet, Rung, Stale, Stopped};
pub use reading::{OwnStatus, Reading, Status, TagId, Validity, Value};
pub use time::Time;

/// `host:port`, `[v6]:port` or `host`, with a default port.
#[cfg(any(feature = "modbus", feature = "mqtt"))]
fn split_host_port(text: &str, default: u16) -> Result<(String, u16), String> {
    let text = text.strip_suffix('/').unwrap_or(text);
    let (host, port) = match text.rsplit_once(':') {
        _ if text.ends_with(']') => (text, None),
        Some((host, port)) => (host, Some(port)),
        None => (text, None),
    };
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    if host.is_empty() {
        return Err("the endpoint names no host".to_owned());
    }
    let port = match port {
        Some(port) => match port.parse() {
            Ok(0) | Err(_) => return Err(format!("`{port}` is no port; a whole number from 1 to 65535")),
            Ok(port) => port,
        },
        None => default,
    };
    Ok((host.to_owned(), port))
}

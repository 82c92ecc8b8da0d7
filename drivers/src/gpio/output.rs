//! Digital outputs: the only thing that gemba ever writes to, and only those that the configuration names.

use std::fmt::Debug;
use std::sync::Arc;

use embedded_hal::digital::{OutputPin, PinState};
use tokio::sync::watch;
use tracing::warn;

/// A line that is an output. Off when it is made, and off again when it is dropped.
#[derive(Debug)]
pub struct Lamp<P: OutputPin> {
    pin: P,
    active_low: bool,
}

impl<P: OutputPin> Lamp<P> {
    /// Takes `pin` and switches it off. With `active_low` off is high.
    ///
    /// # Errors
    /// What the pin says.
    pub fn new(mut pin: P, active_low: bool) -> Result<Self, P::Error> {
        pin.set_state(level(false, active_low))?;
        Ok(Self { pin, active_low })
    }

    /// Switches it.
    ///
    /// # Errors
    /// What the pin says.
    pub fn set(&mut self, on: bool) -> Result<(), P::Error> {
        self.pin.set_state(level(on, self.active_low))
    }
}

impl<P: OutputPin> Drop for Lamp<P> {
    fn drop(&mut self) {
        if let Err(error) = self.set(false) {
            warn!(?error, "an output could not be switched off");
        }
    }
}

/// The voltage that means on or off.
pub(super) fn level(on: bool, active_low: bool) -> PinState {
    PinState::from(on != active_low)
}

/// A lamp whose pin is nobody's business.
pub(super) trait Switched: Send {
    fn set(&mut self, on: bool) -> Result<(), String>;
}

impl<P: OutputPin + Send> Switched for Lamp<P>
where
    P::Error: Debug,
{
    fn set(&mut self, on: bool) -> Result<(), String> {
        self.set(on).map_err(|error| format!("{error:?}"))
    }
}

/// A handle on one output of a link: what is asked of it the driver does, as soon as the line is there. It may be asked
/// from anywhere and at any time; the last word counts. At a stop every output is off, whatever was asked.
#[derive(Clone, Debug)]
pub struct Switch {
    name: Arc<str>,
    index: usize,
    wanted: Arc<watch::Sender<Vec<bool>>>,
}

impl Switch {
    pub(super) fn new(name: Arc<str>, index: usize, wanted: Arc<watch::Sender<Vec<bool>>>) -> Self {
        Self { name, index, wanted }
    }

    /// The output's name in the configuration.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Asks for it on or off.
    pub fn set(&self, on: bool) {
        self.wanted.send_if_modified(|wanted| std::mem::replace(&mut wanted[self.index], on) != on);
    }
}

#[cfg(test)]
mod tests {
    use embedded_hal_mock::eh1::MockError;
    use embedded_hal_mock::eh1::digital::{Mock, State, Transaction};

    use super::*;

    #[test]
    fn a_lamp_is_off_before_and_after() {
        for (active_low, off, on) in [(false, State::Low, State::High), (true, State::High, State::Low)] {
            let expected = [off, on, off, on, off].map(Transaction::set);
            let pin = Mock::new(&expected);
            let mut watched = pin.clone();
            let mut lamp = Lamp::new(pin, active_low).expect("it is there");
            lamp.set(true).expect("on");
            lamp.set(false).expect("off");
            lamp.set(true).expect("on");
            drop(lamp);
            watched.done();
        }
    }

    #[test]
    fn a_pin_that_fails_says_so() {
        let gone = || MockError::Io(std::io::ErrorKind::NotConnected);
        let failing = Mock::new(&[Transaction::set(State::Low).with_error(gone())]);
        let mut watched = failing.clone();
        // It was never had, so it is not switched off either.
        assert_eq!(Lamp::new(failing, false).map(|_| ()).expect_err("gone"), gone());
        watched.done();
    }
}

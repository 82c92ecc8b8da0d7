//! OPC UA client: one session, one subscription.

mod config;

pub use config::{Config, Identifier, Identity, Namespace, Node, Security, Station, Tag};

/// The driver.
pub struct Client {
    config: Config,
}

impl Client {
    /// A driver for `config`; nothing is connected yet.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self { config }
    }
}

impl crate::Driver for Client {
    fn tags(&self) -> Vec<crate::TagId> {
        let _ = &self.config;
        Vec::new()
    }

    async fn connect(&mut self) -> Result<(), crate::LinkError> {
        Err(crate::LinkError::Refused("scaffold".to_owned()))
    }

    async fn run(&mut self, _: &crate::Outlet) -> crate::LinkError {
        crate::LinkError::Broken("scaffold".to_owned())
    }

    async fn close(&mut self) {}
}

//! Looking at a device without running.

use super::Client;
use crate::LinkError;
use crate::survey::{Offered, Probed, Scope, Survey};

impl Survey for Client {
    async fn probe(&mut self, _: &mut (dyn FnMut(Probed) + Send)) -> Result<(), LinkError> {
        Err(LinkError::Refused("this protocol cannot be probed yet".to_owned()))
    }

    async fn browse(&mut self, _: &Scope, _: &mut (dyn FnMut(Offered) + Send)) -> Result<(), LinkError> {
        Err(LinkError::Refused("this protocol cannot be browsed yet".to_owned()))
    }
}

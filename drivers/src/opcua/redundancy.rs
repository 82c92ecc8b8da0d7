//! Servers that stand in for one another (OPC 10000-4, 6.6.2, non-transparent): one link, several places to find it.
//!
//! One is used at a time, and as long as it works: nothing moves back when a better one returns, so nothing flaps. When
//! the link breaks the next in the list is tried first. While connecting each is asked how well it is (`ServiceLevel`):
//! the first that is healthy is taken; when none is, the healthiest of those that answer. A server that does not say
//! counts as healthy. Behind transparent redundancy there is one address, and nothing of this is needed.

use opcua::types::{VariableId, Variant};
use tracing::{info, warn};

use super::link::Link;
use super::{Config, endpoint};
use crate::LinkError;

/// From here on a server is healthy (OPC 10000-4, table 101); below it is degraded, has no data (1) or is being
/// serviced (0).
const HEALTHY: u8 = 200;

/// The servers of a set, and where we are.
pub(super) struct Servers {
    urls: Vec<String>,
    /// Which to try first.
    first: usize,
    /// Whether `first` is one that we had.
    had: bool,
}

impl Servers {
    pub(super) fn of(config: &Config) -> Self {
        let urls = std::iter::once(&config.endpoint).chain(&config.spares).cloned().collect();
        Self { urls, first: 0, had: false }
    }

    /// Brings a session up with one of them, kept in `held` from its first packet on.
    pub(super) async fn reach(&mut self, config: &Config, held: &mut Option<Link>) -> Result<(), LinkError> {
        let count = self.urls.len();
        if std::mem::take(&mut self.had) {
            self.first = (self.first + 1) % count;
        }
        // By their places in the list: an address may have been filled in from a secret.
        let mut failures = Vec::new();
        let mut doubtful = Vec::new();
        for index in (0..count).map(|step| (self.first + step) % count) {
            let url = &self.urls[index];
            match self.open(config, url, held).await {
                Ok(level @ (None | Some(HEALTHY..))) => {
                    self.settle(index, level);
                    return Ok(());
                }
                Ok(Some(level)) => doubtful.push((level, index)),
                Err(error) => failures.push((index + 1, error)),
            }
            close(held).await;
        }
        // The first of the best: sorting keeps those of one level in order.
        doubtful.sort_by_key(|(level, _)| std::cmp::Reverse(*level));
        for (_, index) in doubtful {
            let url = &self.urls[index];
            match self.open(config, url, held).await {
                Ok(level) => {
                    warn!(
                        server = index + 1,
                        of = count,
                        service_level = level,
                        "no server of the set is healthy; this is the best one"
                    );
                    self.settle(index, level);
                    return Ok(());
                }
                Err(error) => failures.push((index + 1, error)),
            }
            close(held).await;
        }
        Err(all_failed(failures))
    }

    /// A session there, and how well the server says it is; nobody asks one that has no stand-in.
    async fn open(&self, config: &Config, url: &str, held: &mut Option<Link>) -> Result<Option<u8>, LinkError> {
        let endpoint = endpoint::find(config, url).await?;
        let link = held.insert(Link::new(config, endpoint)?);
        link.wait_until_up().await?;
        if self.urls.len() == 1 {
            return Ok(None);
        }
        Ok(match link.read_one(VariableId::Server_ServiceLevel).await? {
            Some(Variant::Byte(level)) => Some(level),
            _ => None,
        })
    }

    /// The one that is used, by its place in the list from 1, and how many there are; none where there is but one.
    pub(super) fn used(&self) -> Option<(usize, usize)> {
        (self.urls.len() > 1).then_some((self.first + 1, self.urls.len()))
    }

    fn settle(&mut self, index: usize, level: Option<u8>) {
        self.first = index;
        self.had = true;
        if self.urls.len() > 1 {
            info!(server = index + 1, of = self.urls.len(), service_level = level, "reached a server of the set");
        }
    }
}

async fn close(held: &mut Option<Link>) {
    if let Some(link) = held.take() {
        link.close().await;
    }
}

/// One error for all. It is worth trying again soon if that holds for any of them.
fn all_failed(mut failures: Vec<(usize, LinkError)>) -> LinkError {
    if failures.len() == 1
        && let Some((_, error)) = failures.pop()
    {
        return error;
    }
    let told = failures.iter().map(|(place, error)| format!("server {place}: {error}")).collect::<Vec<_>>().join("; ");
    if failures.iter().any(|(_, error)| error.retry_helps()) {
        LinkError::Unreachable(told)
    } else {
        LinkError::Refused(told)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_server_that_may_come_back_is_worth_another_try() {
        let refused = || LinkError::Refused("no".to_owned());
        let away = || LinkError::Unreachable("away".to_owned());
        let of = |failures: Vec<LinkError>| {
            all_failed(failures.into_iter().zip(1..).map(|(error, place)| (place, error)).collect())
        };
        assert_eq!(of(vec![refused()]).to_string(), "refused: no", "a single server speaks for itself");
        assert!(of(vec![refused(), away()]).retry_helps());
        let both = of(vec![refused(), refused()]);
        assert_eq!(both.to_string(), "refused: server 1: refused: no; server 2: refused: no");
    }
}

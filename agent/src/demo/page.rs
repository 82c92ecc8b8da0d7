//! The page, as anybody outside reads it: over HTTP.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use anyhow::Context;
use gemba_drivers::Time;
use serde::Deserialize;

/// A page that takes longer is not up.
const TIMEOUT: Duration = Duration::from_secs(5);

/// A reader of the page.
pub(super) struct Page {
    client: reqwest::Client,
    address: SocketAddr,
}

/// `/health`, as far as the demo reads it.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Health {
    /// When the snapshot was taken.
    pub time: Option<Time>,
    pub stations: Vec<Station>,
    pub loss_totals: Vec<LossTotal>,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct Station {
    pub name: String,
    pub link: String,
    pub state: Option<String>,
    pub kpi: Option<Kpi>,
    pub tags: Vec<Tag>,
}

/// The figures of a station's shift so far.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct Kpi {
    /// Since when.
    pub since: Option<Time>,
    /// Overall equipment effectiveness.
    pub oee: Option<f64>,
    /// Run time over planned time.
    pub availability: Option<f64>,
    /// Ideal time of the parts over run time.
    pub performance: Option<f64>,
    /// Good parts over parts.
    pub quality: Option<f64>,
    /// Known time over planned time.
    pub coverage: Option<f64>,
    /// Parts.
    pub total: Option<f64>,
    /// Good ones.
    pub good: Option<f64>,
    /// Rejected ones.
    pub reject: Option<f64>,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct Tag {
    pub name: String,
    pub validity: String,
}

/// What was lost of one source for one reason.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct LossTotal {
    /// A station, a lane of the spool, or `upstream`.
    pub source: String,
    /// Why.
    pub reason: String,
    /// How many readings or messages.
    pub count: u64,
}

impl Page {
    /// The page that listens on `address`.
    pub(super) fn new(address: SocketAddr) -> anyhow::Result<Self> {
        let client = reqwest::Client::builder().timeout(TIMEOUT).no_proxy().build().context("an HTTP client")?;
        Ok(Self { client, address: reachable(address) })
    }

    /// What a browser is to open.
    pub(super) fn url(&self) -> String {
        format!("http://{}/health", self.address)
    }

    pub(super) async fn health(&self) -> anyhow::Result<Health> {
        let text = self.get("/health").await?;
        serde_json::from_str(&text).with_context(|| format!("{} is not as it should be: {text}", self.url()))
    }

    /// Readings that were taken in so far.
    pub(super) async fn readings(&self) -> anyhow::Result<u64> {
        let text = self.get("/metrics").await?;
        let samples = text.lines().filter(|line| line.starts_with("gemba_readings_total{"));
        Ok(samples.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum())
    }

    async fn get(&self, path: &str) -> anyhow::Result<String> {
        let url = format!("http://{}{path}", self.address);
        // 503 has the same body: it is about the line.
        let answer = self.client.get(&url).send().await.with_context(|| url.clone())?;
        answer.text().await.context(url)
    }
}

impl Health {
    /// What nobody has heard of yet: links that are not up, tags without a first value.
    pub(super) fn missing(&self) -> Vec<String> {
        let mut missing = Vec::new();
        for station in &self.stations {
            if station.link != "connected" {
                missing.push(format!("{} is {}", station.name, station.link));
                continue;
            }
            let silent = station.tags.iter().filter(|tag| tag.validity != "good");
            missing.extend(silent.map(|tag| format!("{}/{} is {}", station.name, tag.name, tag.validity)));
        }
        missing
    }

    pub(super) fn lost(&self) -> u64 {
        self.loss_totals.iter().map(|loss| loss.count).sum()
    }
}

/// Who listens everywhere is reached here too.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everywhere_is_also_here() {
        let reached = |text: &str| reachable(text.parse().expect("an address")).to_string();
        assert_eq!(reached("0.0.0.0:8080"), "127.0.0.1:8080");
        assert_eq!(reached("[::]:8080"), "[::1]:8080");
        assert_eq!(reached("192.168.1.7:80"), "192.168.1.7:80");
    }

    #[test]
    fn what_is_missing_is_named() {
        let health: Health = serde_json::from_str(
            r#"{"time":null,"loss_totals":[{"source":"upstream","reason":"r","count":3}],"stations":[
                {"name":"a","link":"connecting","state":null,"kpi":null,"tags":[]},
                {"name":"b","link":"connected","state":"down","kpi":{"since":null},"tags":[
                    {"name":"x","validity":"good"},{"name":"y","validity":"bad"}]}]}"#,
        )
        .expect("a body");
        assert_eq!(health.missing(), ["a is connecting", "b/y is bad"]);
        assert_eq!(health.lost(), 3);
    }
}

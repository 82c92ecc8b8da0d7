//! What the demo says on its way.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::summary::clock;

/// What a demo has to say on its way.
#[derive(Clone, Debug)]
pub enum News {
    /// Another program listens there; a free port is taken instead.
    PortTaken(SocketAddr),
    /// The page is up.
    Page {
        /// For a browser.
        url: String,
        /// Where the page listens.
        address: SocketAddr,
        /// What gemba runs.
        configuration: PathBuf,
    },
    /// Every link is up and every tag has a value: the machines start.
    Started,
    /// How it goes.
    Progress(Progress),
    /// The machines have halted; the figures are compared.
    Halted,
}

/// How a demo goes.
#[derive(Clone, Debug)]
pub struct Progress {
    /// Whether to say above it what stands where.
    pub headed: bool,
    /// Since the machines started.
    pub elapsed: Duration,
    /// In the order configured.
    pub stations: Vec<StationProgress>,
    /// Readings taken in a second, since the last progress.
    pub readings_rate: f64,
    /// Points that upstream got a second, since the last progress.
    pub points_rate: f64,
    /// In the ledger.
    pub lost: u64,
}

/// How a station goes.
#[derive(Clone, Debug)]
pub struct StationProgress {
    /// Its name.
    pub name: String,
    /// In a word.
    pub state: String,
    /// Of the shift so far.
    pub oee: Option<f64>,
    /// Parts of the shift so far.
    pub total: Option<f64>,
}

/// What the machines' start is told with: how to read the lines that follow.
const STARTED: &str = "\
Three links are up and every tag has a value: the machines start.

A line each 5 s: each machine's state, its OEE in percent and the parts it made;
readings taken in and points that upstream got, a second. What is lost is told.
";

impl fmt::Display for News {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PortTaken(wanted) => write!(f, "{wanted} is in use by another program; taking a free port instead."),
            Self::Page { url, configuration, .. } => {
                write!(f, "Open    {url}\nStop    ctrl-C\nRuns    {}", configuration.display())
            }
            Self::Started => f.write_str(STARTED),
            Self::Progress(progress) => progress.fmt(f),
            Self::Halted => f.write_str("\nThe machines have halted. Comparing."),
        }
    }
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { headed, elapsed, stations, readings_rate, points_rate, lost } = self;
        if *headed {
            write!(f, "{:>5}", "time")?;
            stations.iter().try_for_each(|station| write!(f, "  {:<9} OEE made", station.name))?;
            writeln!(f, " {:>5} {:>6}", "in/s", "up/s")?;
        }
        write!(f, "{:>5}", clock(*elapsed))?;
        for StationProgress { state, oee, total, .. } in stations {
            let oee = oee.map_or("-".to_owned(), |oee| format!("{:.0}", oee * 100.0));
            let total = total.map_or("-".to_owned(), |total| total.to_string());
            write!(f, "  {state:<9} {oee:>3} {total:>4}")?;
        }
        write!(f, " {readings_rate:>5.0} {points_rate:>6.0}")?;
        if *lost > 0 { write!(f, "  lost {lost}") } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_a_line_that_fits() {
        let station = |name: &str, state: &str, oee| StationProgress {
            name: name.to_owned(),
            state: state.to_owned(),
            oee,
            total: Some(1234.0),
        };
        let stations = vec![
            station("printer-1", "producing", Some(0.834)),
            station("aoi-1", "down", Some(1.0)),
            station("oven-1", "starved", None),
        ];
        let mut progress = Progress {
            headed: true,
            elapsed: Duration::from_secs(65),
            stations,
            readings_rate: 90.4,
            points_rate: 1234.5,
            lost: 0,
        };
        let expected = " time  printer-1 OEE made  aoi-1     OEE made  oven-1    OEE made  in/s   up/s
 1:05  producing  83 1234  down      100 1234  starved     - 1234    90   1234";
        assert_eq!(progress.to_string(), expected);
        assert!(expected.lines().all(|line| line.len() < 79));
        (progress.headed, progress.lost, progress.elapsed) = (false, 3, Duration::from_secs(3_605));
        let line = progress.to_string();
        assert!(line.starts_with("1:00:05  producing") && line.ends_with("  lost 3") && !line.contains('\n'), "{line}");
    }
}

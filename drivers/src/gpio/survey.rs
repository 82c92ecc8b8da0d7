//! Looking at a chip without running.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use super::analog::Converter;
use super::config::{Pins, Range};
use super::hardware::LineInfo;
use super::{Client, config};
use crate::survey::{Offered, Probed, Scope, Survey};
use crate::{Driver, LinkError, Reading, Time, Value};

impl Survey for Client {
    /// Takes each line for as long as it is looked at; one that a gemba beside it has is bad, and stays with it.
    async fn probe(&mut self, told: &mut (dyn FnMut(Probed) + Send)) -> Result<(), LinkError> {
        let begun = Instant::now();
        self.connect().await?;
        let round_trip = begun.elapsed();
        let mut all: Vec<Probed> = Vec::new();
        for pin in &mut self.pins {
            let level = pin.level();
            for reading in pin.stand(Time::now()) {
                let counted = matches!(reading.value, Value::Int(_));
                let otherwise = level.filter(|_| counted).map(|on| ("without `count`".to_owned(), Value::Bool(on)));
                all.push(Probed { reading, round_trip, otherwise: otherwise.into_iter().collect() });
            }
        }
        let mut answered = |tags: &[crate::TagId], answers: super::converters::Answers| {
            let now = Time::now();
            for &tag in tags {
                let answer = answers.told.iter().find(|told| told.tag == tag);
                let (reading, round_trip) = match (answer, &answers.fault) {
                    (Some(told), _) => (Reading::good(tag, Value::Float(told.volts), told.at, told.at), told.took),
                    (None, Some(fault)) => (Reading::bad(tag, fault.status(), now, now), Duration::ZERO),
                    (None, None) => continue,
                };
                all.push(Probed { reading, round_trip, otherwise: Vec::new() });
            }
        };
        self.converters.ask_all(&mut answered, &mut *self.hardware).await;
        self.close().await;
        all.sort_by_key(|probed| probed.reading.tag);
        all.into_iter().for_each(told);
        Ok(())
    }

    /// The chip's lines, none of which is touched, and the inputs of the converters that a source names, each read once.
    async fn browse(&mut self, scope: &Scope, found: &mut (dyn FnMut(Offered) + Send)) -> Result<(), LinkError> {
        let devices: Vec<_> = self.converters.devices().cloned().collect();
        let lines = self.hardware.lines();
        let mut offered = lines.as_deref().map(lines_offered).unwrap_or_default();
        let mut opened = false;
        for device in devices {
            // What a source names and cannot be opened is not offered.
            let Ok(converter) = self.hardware.converter(&device) else { continue };
            opened = true;
            let inputs = device.model.inputs();
            let volts = tokio::task::spawn_blocking(move || read_all(converter, inputs)).await.unwrap_or_default();
            offered.extend(channels_offered(&device, &volts));
        }
        // A source may be there for its converters alone.
        if let (Err(fault), false) = (lines, opened) {
            return Err(fault.of_link());
        }
        offered.into_iter().take(scope.most).for_each(found);
        Ok(())
    }
}

/// What each input says until the first that says nothing.
fn read_all(mut converter: Box<dyn Converter>, inputs: u8) -> Vec<f64> {
    (0..inputs).map_while(|input| converter.volts(Pins::Single(input), Range::default()).ok()).collect()
}

/// By their names, which survive another numbering; by their numbers where a name is missing or not the only one.
fn lines_offered(lines: &[LineInfo]) -> Vec<Offered> {
    let mut taken = HashSet::new();
    let offered = lines.iter().map(|line| {
        let only = !line.name.is_empty() && lines.iter().filter(|other| other.name == line.name).count() == 1;
        let digits = line.name.bytes().all(|byte| byte.is_ascii_digit());
        let address = if only && !digits { line.name.clone() } else { line.offset.to_string() };
        let mut name = if only && !digits { tag_name(&line.name) } else { format!("line{}", line.offset) };
        if !taken.insert(name.clone()) {
            name = format!("line{}", line.offset);
            taken.insert(name.clone());
        }
        let direction = if line.is_output { "output" } else { "input" };
        let owner = match line.taken.as_deref() {
            None => String::new(),
            Some("") => ", taken by the kernel".to_owned(),
            Some(who) => format!(", taken by `{who}`"),
        };
        let called = if line.name.is_empty() { String::new() } else { format!(" ({})", line.name) };
        let about = format!("line {}{called}, {direction}{owner}", line.offset);
        Offered { name, options: vec![("line", address)], unit: None, about, value: None }
    });
    offered.collect()
}

fn channels_offered(device: &config::Device, volts: &[f64]) -> Vec<Offered> {
    let offered = (0..device.model.inputs()).map(|input| Offered {
        name: tag_name(&format!("{}_{input}", device.name)),
        options: vec![("channel", format!("{}:{input}", device.name))],
        unit: Some("V".to_owned()),
        about: format!("{} input {input}, {}", device.name, device.bus),
        value: volts.get(usize::from(input)).map(|volts| Value::Float(*volts)),
    });
    offered.collect()
}

/// In the characters that a tag's name may have.
fn tag_name(text: &str) -> String {
    text.chars().map(|c| if c.is_ascii_alphanumeric() || "_.-/".contains(c) { c } else { '_' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_offered_by_a_name_that_is_theirs_alone() {
        let line = |offset, name: &str, taken: Option<&str>, is_output| LineInfo {
            offset,
            name: name.to_owned(),
            taken: taken.map(str::to_owned),
            is_output,
        };
        let lines = [
            line(0, "ID_SDA", None, false),
            line(1, "", None, false),
            line(2, "NC", None, false),
            line(3, "NC", Some(""), false),
            line(4, "[SD CLK]", Some("gemba"), true),
            line(5, "line1", None, false),
        ];
        let offered: Vec<_> =
            lines_offered(&lines).into_iter().map(|line| (line.name, line.options[0].1.clone(), line.about)).collect();
        let expected = [
            ("ID_SDA", "ID_SDA", "line 0 (ID_SDA), input"),
            ("line1", "1", "line 1, input"),
            ("line2", "2", "line 2 (NC), input"),
            ("line3", "3", "line 3 (NC), input, taken by the kernel"),
            ("_SD_CLK_", "[SD CLK]", "line 4 ([SD CLK]), output, taken by `gemba`"),
            ("line5", "line1", "line 5 (line1), input"),
        ];
        let expected = expected.map(|(name, line, about)| (name.to_owned(), line.to_owned(), about.to_owned()));
        assert_eq!(offered, expected);
    }
}

//! What the benches share. Each bin in `src/bin` prints figures; none of them asserts a time.

pub mod demo;
pub mod gemba;
pub mod process;
pub mod served;
pub mod telegraf;
pub mod upstream;
mod usage;

pub use usage::Usage;

/// Bytes as MiB, for people.
#[must_use]
pub fn mib(bytes: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "for people")]
    let bytes = bytes as f64;
    bytes / f64::from(1 << 20)
}

/// How a figure stands to an aim, where less is better, in words.
#[must_use]
pub fn against(figure: f64, aim: f64) -> String {
    if figure <= aim { format!("aim {aim}: met") } else { format!("aim {aim}: missed, {:.2} times it", figure / aim) }
}

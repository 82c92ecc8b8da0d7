//! Whether tags and topics fit together.

use super::super::words::Payload;
use super::{Named, RawTag};
use crate::config::error::Report;
use crate::config::section::At;
use crate::config::words::one_of_names;

/// What is wrong with the tags' own words about topics.
pub(super) fn check_tags(topics: &[Named<'_>], tags: &[RawTag<'_>], written: usize, report: &mut Report) {
    for (tag, _) in tags {
        let own = &tag.value.own;
        let carried = || topics.iter().filter(|topic| topic.carries(&tag.value));
        if let Some(wanted) = &own.topic
            && carried().next().is_none()
            && topics.len() == written
        {
            let names = topics.iter().map(|topic| topic.shown.as_str());
            wanted.wrong(
                report,
                format!(
                    "`{}` is no topic of this station{}",
                    wanted.origin.shown,
                    one_of_names(&wanted.origin.shown, names)
                ),
            );
            continue;
        }
        if topics.len() != written {
            continue; // something was reported, and nobody knows which payload was meant
        }
        use Payload::{Binary, Csv, Json, Plain, Sparkplug};
        for (said, fits) in [
            (own.path.as_ref().map(At::origin), &[Json][..]),
            (own.column.as_ref().map(At::origin), &[Csv]),
            (own.byte.as_ref().map(At::origin), &[Binary]),
            (own.r#as.as_ref().map(At::origin), &[Binary, Csv, Plain]),
            (own.byte_order.as_ref().map(At::origin).filter(|said| said.written), &[Binary]),
            (own.metric_name.as_ref().map(At::origin), &[Sparkplug]),
            (own.device.as_ref().map(At::origin), &[Sparkplug]),
        ] {
            if let Some(said) = said
                && let Some(topic) = carried().next()
                && !carried().any(|topic| fits.contains(&topic.payload))
            {
                let list = crate::config::suggest::list(fits.iter().map(|payload| payload.word()));
                said.wrong(
                    report,
                    format!("is of no use with `payload: {}`; it belongs to {list}", topic.payload.word()),
                );
            }
        }
    }
}

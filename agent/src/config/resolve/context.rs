//! What a station works on: which of its tags tell serial, product, lot and order.

use gemba_drivers::TagId;

use super::TagFacts;
use crate::config::error::Report;
use crate::config::raw;
use crate::config::section::At;
use crate::config::words::one_of_names;
use crate::model::ContextSpec;

/// What `context` means for a station with these tags.
pub(super) fn resolve(context: Option<&At<raw::Context>>, tags: &[TagFacts], report: &mut Report) -> ContextSpec {
    let Some(context) = context else { return ContextSpec::default() };
    if [&context.serial, &context.product, &context.lot, &context.order].into_iter().all(Option::is_none) {
        context
            .wrong(report, "nothing is named; give the tag of at least one of `serial`, `product`, `lot` and `order`");
    }
    let mut taken: Vec<(TagId, &'static str)> = Vec::new();
    let mut tag = |role, told: &Option<At<raw::ContextTag>>| {
        let name = told.as_ref()?.tag.as_ref()?;
        let Some(tag) = tags.iter().find(|tag| tag.name == name.value.0) else {
            let names = tags.iter().map(|tag| &*tag.shown).filter(|name| !name.is_empty());
            let others = one_of_names(&name.origin.shown, names);
            name.wrong(report, format!("`{}` is no tag of this station{others}", name.origin.shown));
            return None;
        };
        if let Some((_, other)) = taken.iter().find(|(taken, _)| *taken == tag.id) {
            name.wrong(report, format!("`{}` is already the tag of `{other}`", name.origin.shown));
        }
        taken.push((tag.id, role));
        Some(tag.id)
    };
    ContextSpec {
        serial: tag("serial", &context.serial),
        product: tag("product", &context.product),
        lot: tag("lot", &context.lot),
        order: tag("order", &context.order),
    }
}

//! How long a certificate lasts, and when that requires a touch.

use serde::Deserialize;
use sshsm_protocol::ssh::rules::{self, Rules};

use super::{HostRule, Parsed, Text, seconds, span};
use crate::{
    duration,
    template::{
        compare::{Within, at_most},
        lints::{LONG, Lint, Reviewed, Say},
        problem::Problem,
    },
};

pub(super) struct MaxLifetime;
pub(super) struct Presence;

/// `presence`.
#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "presence is \"always\" or a table such as { above = \"1h\" }")]
pub(super) enum PresenceText {
    Word(String),
    Above { above: String },
}

impl HostRule for MaxLifetime {
    fn parse(&self, text: &Text) -> Parsed {
        let Some(lifetime) = &text.max_lifetime else { return Ok(None) };
        Ok(Some((lifetime.span().start, seconds("max-lifetime", lifetime)?)))
    }

    fn words(&self, rules: &Rules<'_>) -> Option<String> {
        rules.max_lifetime.map(|most| duration::in_words(most.into()))
    }

    fn absent(&self) -> &'static str {
        "as long as the offsets allow"
    }

    fn compare(&self, before: &Rules<'_>, after: &Rules<'_>) -> Within {
        at_most(before.max_lifetime, after.max_lifetime)
    }

    fn entries(&self, _: &Rules<'_>) -> Option<Vec<String>> {
        None
    }

    fn lint(&self, template: &Reviewed<'_>, say: &mut Say<'_>) {
        let (rule, most) = ("max-lifetime", template.rules.max_lifetime);
        if template.longest().is_none() {
            let message = "a certificate may last forever";
            say(Lint::LastsForEver, rule, message.into(), "bound it: max-lifetime = \"8h\"");
        }
        if most == Some(0) {
            let message = "a certificate has to end when it begins";
            say(Lint::NeverValid, rule, message.into(), "max-lifetime = \"8h\"");
        }
        if let Some((most, window)) = most.zip(template.window())
            && u64::from(most) >= window
        {
            let message = "the two offsets leave room for no longer a lifetime, so it never refuses anything";
            let advice = "shorten max-lifetime, or leave it out";
            say(Lint::MaxLifetimeWithoutEffect, rule, message.into(), advice);
        }
    }
}

impl HostRule for Presence {
    fn parse(&self, text: &Text) -> Parsed {
        let Some(presence) = &text.presence else { return Ok(None) };
        let place = presence.span().start;
        let value = match presence.get_ref() {
            PresenceText::Word(word) if word == "always" => Vec::new(),
            PresenceText::Word(word) => {
                let known = "\"always\", or { above = \"8h\" }".into();
                return Err((place, Problem::Unknown { name: word.clone(), known }));
            }
            PresenceText::Above { above } => span("above", above).map_err(|problem| (place, problem))?,
        };
        Ok(Some((place, value)))
    }

    fn words(&self, rules: &Rules<'_>) -> Option<String> {
        rules.presence.map(|presence| match presence {
            rules::Presence::Always => "a touch for every signature".into(),
            rules::Presence::Above(seconds) => {
                format!("a touch for certificates of more than {}", duration::in_words(seconds.into()))
            }
        })
    }

    fn absent(&self) -> &'static str {
        "as the device's option user-presence says"
    }

    fn compare(&self, before: &Rules<'_>, after: &Rules<'_>) -> Within {
        // The device's option user-presence applies in addition.
        let from = |presence: rules::Presence| match presence {
            rules::Presence::Always => 0,
            rules::Presence::Above(seconds) => u64::from(seconds) + 1,
        };
        at_most(before.presence.map(from), after.presence.map(from))
    }

    fn entries(&self, _: &Rules<'_>) -> Option<Vec<String>> {
        None
    }

    fn lint(&self, template: &Reviewed<'_>, say: &mut Say<'_>) {
        let (rule, longest) = ("presence", template.longest());
        let untouched = match template.rules.presence {
            Some(rules::Presence::Above(above))
                if longest.is_some_and(|longest| longest <= above.into())
                    && template.not_after.seconds().is_some_and(|reach| reach <= above) =>
            {
                let lasts = longest.map_or_else(|| "for ever".to_owned(), duration::in_words);
                let message = format!(
                    "no certificate can last longer than {lasts} or end later than the bound after now, so a touch is \
                     never asked for"
                );
                say(Lint::PresenceNeverAsked, rule, message, "lower the bound, or presence = \"always\"");
                false
            }
            Some(rules::Presence::Above(above)) => u64::from(above) > LONG,
            Some(rules::Presence::Always) => false,
            None => longest.is_none_or(|longest| longest > LONG),
        };
        if untouched {
            let message = "a certificate of more than a day is signed without anyone at the device";
            say(Lint::LongWithoutPresence, rule, message.into(), "presence = { above = \"1d\" }");
        }
    }
}

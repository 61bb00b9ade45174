//! State that a device keeps between signatures: serial numbers, the clock, a quota; and the template itself.

use serde::Deserialize;
use sshsm_firmware::ssh::policy::Value;
use sshsm_protocol::ssh::rules::{self, MAX_QUOTA, Rules};
use toml::Spanned;

use super::{HostRule, Parsed, Text, flag, number, seconds};
use crate::{
    duration,
    template::{
        compare::{Within, any_of, at_most, both, restricts},
        lints::{Lint, Reviewed, Say},
        problem::Problem,
    },
};

pub(super) struct Serials;
pub(super) struct IncreasingSerials;
pub(super) struct SerialsMaxStep;
pub(super) struct Clock;
pub(super) struct ClockMaxStep;
pub(super) struct Quota;
pub(super) struct Sealed;

/// Serial numbers that should at least be left.
const FEW_SERIALS: u64 = 1000;

/// The rule that prevents a clock from going back.
const MONOTONIC: &str = "clock = { monotonic = true, tolerance = \"1m\" }";

/// `serials`.
#[derive(Debug, Deserialize)]
#[serde(
    deny_unknown_fields,
    rename_all = "kebab-case",
    expecting = "a table such as { first = 1, last = 999, increasing = true, max-step = 100 }"
)]
pub(super) struct SerialsText {
    first: Option<Spanned<i64>>,
    last: Option<Spanned<i64>>,
    #[serde(default)]
    increasing: bool,
    max_step: Option<Spanned<i64>>,
}

/// `clock`.
#[derive(Debug, Deserialize)]
#[serde(
    deny_unknown_fields,
    rename_all = "kebab-case",
    expecting = "a table such as { monotonic = true, tolerance = \"1m\", max-step = \"30d\" }"
)]
pub(super) struct ClockText {
    monotonic: bool,
    tolerance: Option<Spanned<String>>,
    max_step: Option<Spanned<String>>,
    since: Option<Spanned<toml::value::Datetime>>,
}

/// `quota`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table such as { signatures = 10, window = \"1h\" }")]
pub(super) struct QuotaText {
    signatures: Spanned<i64>,
    window: Spanned<String>,
}

/// What a single number, or time, too far ahead makes unusable.
const fn killed(rules: &Rules<'_>) -> &'static str {
    if rules.sealed {
        "nothing can be signed any more, and a sealed template cannot be replaced"
    } else {
        "nothing can be signed any more under a template with this id"
    }
}

impl HostRule for Serials {
    fn parse(&self, text: &Text) -> Parsed {
        let Some(serials) = &text.serials else { return Ok(None) };
        let SerialsText { first, last, .. } = serials.get_ref();
        if first.is_none() && last.is_none() {
            return Ok(None);
        }
        // TOML's greatest number.
        let most = i64::MAX as u64;
        let first = first.as_ref().map_or(Ok(0), |first| number("first", first, 0, most))?;
        let last = last.as_ref().map_or(Ok(u64::MAX), |last| number("last", last, 0, most))?;
        Ok(Some((serials.span().start, [first.to_be_bytes(), last.to_be_bytes()].concat())))
    }

    fn words(&self, rules: &Rules<'_>) -> Option<String> {
        rules.serials.map(|serials| Value::Serials(serials).to_string())
    }

    fn absent(&self) -> &'static str {
        "any"
    }

    fn compare(&self, before: &Rules<'_>, after: &Rules<'_>) -> Within {
        let first = |rules: &Rules<'_>| Some(rules.serials.map_or(0, |serials| serials.first));
        let last = |rules: &Rules<'_>| Some(rules.serials.map_or(u64::MAX, |serials| serials.last));
        both(at_most(first(after), first(before)), at_most(last(before), last(after)))
    }

    fn entries(&self, _: &Rules<'_>) -> Option<Vec<String>> {
        None
    }

    /// A range runs out if serial numbers increase: [`IncreasingSerials`].
    fn lint(&self, _: &Reviewed<'_>, _: &mut Say<'_>) {}
}

impl HostRule for IncreasingSerials {
    fn parse(&self, text: &Text) -> Parsed {
        let serials = text.serials.as_ref().filter(|serials| serials.get_ref().increasing);
        Ok(serials.map(|serials| (serials.span().start, Vec::new())))
    }

    fn words(&self, rules: &Rules<'_>) -> Option<String> {
        rules.increasing_serials.then(|| "each greater than the last".into())
    }

    fn absent(&self) -> &'static str {
        "any"
    }

    fn compare(&self, before: &Rules<'_>, after: &Rules<'_>) -> Within {
        restricts(before.increasing_serials, after.increasing_serials)
    }

    fn entries(&self, _: &Rules<'_>) -> Option<Vec<String>> {
        None
    }

    fn lint(&self, template: &Reviewed<'_>, say: &mut Say<'_>) {
        let rules = &template.rules;
        if !rules.increasing_serials {
            return;
        }
        if rules.clock.is_none() {
            let message = "serial numbers show the order of signatures, but without a monotonic clock not the order of times";
            say(Lint::SerialsWithoutClock, "serials", message.into(), MONOTONIC);
        }
        let (first, last) = rules.serials.map_or((0, u64::MAX), |serials| (serials.first, serials.last));
        // How many there are, less one; `None` for none.
        let left = match template.last_serial {
            Some(used) => used.checked_add(1).and_then(|next| last.checked_sub(next.max(first))),
            None => Some(last - first.min(last)),
        };
        let advice = format!("serials = {{ first = {first}, increasing = true }}, without a last one");
        match left {
            None => {
                let message = format!(
                    "{last} is the last serial number, and it is used: nothing can be signed any more"
                );
                say(Lint::SerialsExhausted, "serials", message, &advice);
            }
            Some(left) if left < FEW_SERIALS - 1 => {
                let message =
                    format!("after {} more signatures, or fewer, nothing can be signed any more", left + 1);
                say(Lint::FewSerials, "serials", message, &advice);
            }
            Some(_) => {}
        }
    }
}

impl HostRule for SerialsMaxStep {
    fn parse(&self, text: &Text) -> Parsed {
        let Some(step) = text.serials.as_ref().and_then(|serials| serials.get_ref().max_step.as_ref()) else {
            return Ok(None);
        };
        let value = number("max-step", step, 1, i64::MAX as u64)?;
        Ok(Some((step.span().start, value.to_be_bytes().to_vec())))
    }

    fn words(&self, rules: &Rules<'_>) -> Option<String> {
        rules.serials_max_step.map(|step| format!("each at most {step} greater than the last"))
    }

    fn absent(&self) -> &'static str {
        "a step of any size"
    }

    fn compare(&self, before: &Rules<'_>, after: &Rules<'_>) -> Within {
        at_most(before.serials_max_step, after.serials_max_step)
    }

    fn entries(&self, _: &Rules<'_>) -> Option<Vec<String>> {
        None
    }

    fn lint(&self, template: &Reviewed<'_>, say: &mut Say<'_>) {
        let rules = &template.rules;
        if rules.increasing_serials && rules.serials_max_step.is_none() {
            let last = rules.serials.map_or(u64::MAX, |serials| serials.last);
            let killed = killed(rules);
            let message = format!("one signer can ask for the serial number {last}; after that {killed}");
            let advice = "bound the step: serials = { increasing = true, max-step = 1000 }";
            say(Lint::SerialsWithoutStep, "serials", message, advice);
        }
    }
}

impl HostRule for Clock {
    fn parse(&self, text: &Text) -> Parsed {
        let Some(clock) = text.clock.as_ref().filter(|clock| clock.get_ref().monotonic) else {
            return Ok(None);
        };
        let tolerance = clock.get_ref().tolerance.as_ref();
        let tolerance = tolerance.map_or_else(|| Ok(vec![0; 4]), |span| seconds("tolerance", span))?;
        Ok(Some((clock.span().start, tolerance)))
    }

    fn words(&self, rules: &Rules<'_>) -> Option<String> {
        let tolerance = duration::in_words(rules.clock?.into());
        Some(format!("now goes back by no more than {tolerance}"))
    }

    fn absent(&self) -> &'static str {
        "any now that the authority signs"
    }

    fn compare(&self, before: &Rules<'_>, after: &Rules<'_>) -> Within {
        at_most(before.clock, after.clock)
    }

    fn entries(&self, _: &Rules<'_>) -> Option<Vec<String>> {
        None
    }

    /// Rules that depend on the clock report that themselves.
    fn lint(&self, _: &Reviewed<'_>, _: &mut Say<'_>) {}
}

impl HostRule for ClockMaxStep {
    fn parse(&self, text: &Text) -> Parsed {
        let Some(clock) = &text.clock else { return Ok(None) };
        let ClockText { max_step, since, .. } = clock.get_ref();
        let Some(step) = max_step else {
            return match since {
                Some(since) => Err((since.span().start, Problem::SinceWithoutStep)),
                None => Ok(None),
            };
        };
        let mut value = seconds("max-step", step)?;
        if let Some(since) = since {
            let time = since.get_ref().to_string().parse::<jiff::Timestamp>().ok();
            let time = time.and_then(|time| u32::try_from(time.as_second()).ok());
            let time = time.ok_or((since.span().start, Problem::Time { name: "since" }))?;
            value.extend(time.to_be_bytes());
        }
        Ok(Some((step.span().start, value)))
    }

    fn words(&self, rules: &Rules<'_>) -> Option<String> {
        rules.clock_max_step.map(|rules::ClockStep { seconds, since }| {
            let since = since.map(|since| Value::Time { seconds: since.into(), excess: 0 });
            let first = since.map_or_else(
                || "; the first may be any".into(),
                |since| format!("; the first from {since} on"),
            );
            format!("now goes ahead by no more than {}{first}", duration::in_words(seconds.into()))
        })
    }

    fn absent(&self) -> &'static str {
        "a step of any size"
    }

    fn compare(&self, before: &Rules<'_>, after: &Rules<'_>) -> Within {
        let seconds = |rules: &Rules<'_>| rules.clock_max_step.map(|step| step.seconds);
        let since =
            |rules: &Rules<'_>| rules.clock_max_step.and_then(|step| step.since).map(|since| vec![since]);
        both(at_most(seconds(before), seconds(after)), any_of(since(before), since(after), u32::eq))
    }

    fn entries(&self, _: &Rules<'_>) -> Option<Vec<String>> {
        None
    }

    fn lint(&self, template: &Reviewed<'_>, say: &mut Say<'_>) {
        let rules = &template.rules;
        match (rules.clock, rules.clock_max_step) {
            (Some(_), None) => {
                let killed = killed(rules);
                let message =
                    format!("one timestamp far in the future puts the clock there, and until then {killed}");
                let advice = "bound the step by the longest time without a signature: clock = { monotonic = true, \
                              max-step = \"90d\" }";
                say(Lint::ClockWithoutStep, "clock", message, advice);
            }
            (Some(_), Some(rules::ClockStep { since: None, .. })) => {
                let message = "the first timestamp may be of any time, and the clock continues from there";
                let advice = "set its start: since = 2026-03-01T00:00:00Z; or sign once before others may";
                say(Lint::ClockWithoutStart, "clock", message.into(), advice);
            }
            (None, _) | (Some(_), Some(rules::ClockStep { since: Some(_), .. })) => {}
        }
    }
}

impl HostRule for Quota {
    fn parse(&self, text: &Text) -> Parsed {
        let Some(quota) = &text.quota else { return Ok(None) };
        let QuotaText { signatures, window } = quota.get_ref();
        let count = number("signatures", signatures, 1, MAX_QUOTA.into())?;
        // It is no greater than a u8, which is the last byte.
        let [.., count] = count.to_be_bytes();
        Ok(Some((quota.span().start, [vec![count], seconds("window", window)?].concat())))
    }

    fn words(&self, rules: &Rules<'_>) -> Option<String> {
        let quota = rules.quota?;
        let window = duration::in_words(quota.window.into());
        Some(format!("at most {} signatures in {window}", quota.signatures))
    }

    fn absent(&self) -> &'static str {
        "any number of signatures"
    }

    fn compare(&self, before: &Rules<'_>, after: &Rules<'_>) -> Within {
        let count = |rules: &Rules<'_>| rules.quota.map(|quota| quota.signatures);
        // The longer, the fewer.
        let window = |rules: &Rules<'_>| rules.quota.map(|quota| u32::MAX - quota.window);
        both(at_most(count(before), count(after)), at_most(window(before), window(after)))
    }

    fn entries(&self, _: &Rules<'_>) -> Option<Vec<String>> {
        None
    }

    fn lint(&self, template: &Reviewed<'_>, say: &mut Say<'_>) {
        if template.rules.quota.is_some() && template.rules.clock.is_none() {
            let message = "a quota counts the authority's now, and is only as reliable as that clock; nothing keeps \
                           it from jumping ahead and back";
            say(Lint::QuotaWithoutClock, "quota", message.into(), MONOTONIC);
        }
    }
}

impl HostRule for Sealed {
    fn parse(&self, text: &Text) -> Parsed {
        flag(&text.sealed)
    }

    fn words(&self, rules: &Rules<'_>) -> Option<String> {
        rules.sealed.then(|| "goes with the whole device only".into())
    }

    fn absent(&self) -> &'static str {
        "the template can be deleted"
    }

    fn compare(&self, before: &Rules<'_>, after: &Rules<'_>) -> Within {
        restricts(before.sealed, after.sealed)
    }

    fn entries(&self, _: &Rules<'_>) -> Option<Vec<String>> {
        None
    }

    fn lint(&self, template: &Reviewed<'_>, say: &mut Say<'_>) {
        if !template.rules.sealed {
            let message = "anyone who may delete templates can replace it";
            let instead = "sealed = true, once the template has been tried; `sshsm device option set templates frozen` \
                           keeps others from being put beside it";
            say(Lint::NotSealed, "sealed", message.into(), instead);
        }
    }
}

//! Which of two templates lets more through: what rules are compared with.

/// Whether everything that one allows passes the other: (before in after, after in before).
pub(super) type Within = (bool, bool);

/// Values of an ordered rule, of which a greater one lets more through; `None` lets everything.
pub(super) fn at_most<T: Ord>(before: Option<T>, after: Option<T>) -> Within {
    let within = |inner: &Option<T>, outer: &Option<T>| match (inner, outer) {
        (_, None) => true,
        (None, Some(_)) => false,
        (Some(inner), Some(outer)) => inner <= outer,
    };
    (within(&before, &after), within(&after, &before))
}

/// Lists, one entry of which is enough; `None` is all there is. `covers(outer, inner)` compares entries.
pub(super) fn any_of<T>(
    before: Option<Vec<T>>,
    after: Option<Vec<T>>,
    covers: impl Fn(&T, &T) -> bool,
) -> Within {
    let within = |inner: &Option<Vec<T>>, outer: &Option<Vec<T>>| match (inner, outer) {
        (_, None) => true,
        (None, Some(_)) => false,
        (Some(inner), Some(outer)) => inner.iter().all(|one| outer.iter().any(|other| covers(other, one))),
    };
    (within(&before, &after), within(&after, &before))
}

/// Lists of required or forbidden things, all of which apply.
pub(super) fn all_of<T: PartialEq>(before: Vec<T>, after: Vec<T>) -> Within {
    let (within, contains) = any_of(Some(before), Some(after), T::eq);
    (contains, within)
}

/// A rule that is there lets less through.
pub(super) const fn restricts(before: bool, after: bool) -> Within {
    (before || !after, after || !before)
}

/// What passes both of two rules.
pub(super) const fn both((one, other): Within, (two, another): Within) -> Within {
    (one && two, other && another)
}

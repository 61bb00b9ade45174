//! Domains: the sixteen compartments that decide which objects a session can see.

/// A set of domains; domain *d* (1…16) is bit *d* − 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Domains(u16);

/// A domain number outside 1…16.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("domain {0} does not exist; domains are 1 to 16")]
pub struct InvalidDomain(pub u16);

impl Domains {
    /// No domain.
    pub const NONE: Self = Self(0);
    /// All sixteen.
    pub const ALL: Self = Self(0xffff);

    /// From the wire's bit set.
    #[must_use]
    pub const fn from_bits(bits: u16) -> Self {
        Self(bits)
    }

    /// The wire's bit set.
    #[must_use]
    pub const fn bits(self) -> u16 {
        self.0
    }

    /// The set of one domain, 1…16.
    pub const fn single(domain: u16) -> Result<Self, InvalidDomain> {
        match domain {
            1..=16 => Ok(Self(1 << (domain - 1))),
            other => Err(InvalidDomain(other)),
        }
    }

    /// What is in both sets.
    #[must_use]
    pub const fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Everything in either set.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether at least one domain is in both sets.
    #[must_use]
    pub const fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Whether every domain of this set is in `other`.
    #[must_use]
    pub const fn is_subset_of(self, other: Self) -> bool {
        self.0 & !other.0 == 0
    }

    /// Whether no domain is in the set.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The domain numbers in the set, ascending.
    pub fn iter(self) -> impl Iterator<Item = u16> {
        (1..=16).filter(move |domain| self.0 & (1 << (domain - 1)) != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn domains_are_told_by_their_numbers() {
        for (domain, bits) in [(1, 1), (5, 0x10), (16, 0x8000)] {
            let single = Domains::single(domain).unwrap();
            assert_eq!((single, single.bits()), (Domains::from_bits(bits), bits));
            assert!(single.iter().eq([domain]));
        }
        assert_eq!(Domains::single(0), Err(InvalidDomain(0)));
        assert_eq!(Domains::single(17), Err(InvalidDomain(17)));
        assert!(Domains::ALL.iter().eq(1..=16) && Domains::NONE.iter().next().is_none());
        assert!(Domains::NONE.is_empty() && !Domains::from_bits(2).is_empty());
    }

    #[test]
    fn sets_are_compared_domain_by_domain() {
        let set = Domains::from_bits;
        assert_eq!(set(0b0101).intersection(set(0b0110)), set(0b0100));
        assert_eq!(set(0b0101).union(set(0b0110)), set(0b0111));
        assert!(set(0b0101).intersects(set(0b0110)) && !set(0b0101).intersects(set(0b1010)));
        assert!(!set(0b0101).intersects(Domains::NONE));
        assert!(set(0b0101).is_subset_of(set(0b1101)) && set(0b0101).is_subset_of(set(0b0101)));
        assert!(!set(0b0101).is_subset_of(set(0b0110)) && Domains::NONE.is_subset_of(Domains::NONE));
    }
}

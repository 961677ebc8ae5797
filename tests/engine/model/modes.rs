//! What a seed tries: how the subscription hands its messages out, and within which limits.

use super::oracle::Spent;

pub(super) const MAX_IN_FLIGHT: usize = 30;
pub(super) const MAX_IN_FLIGHT_PER_CONSUMER: usize = 14;
pub(super) const MAX_RATE: usize = 40;
/// The attribute that fair subscriptions look at.
pub(super) const FAIRNESS_KEY: &str = "tenant";

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Manner {
    Plain,
    Priorities,
    Ordered(Spent),
    Fair,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Mode {
    pub(super) manner: Manner,
    pub(super) limited: bool,
}

const fn mode(manner: Manner, limited: bool) -> Mode {
    Mode { manner, limited }
}

const MODES: [Mode; 8] = [
    mode(Manner::Plain, false),
    mode(Manner::Priorities, false),
    mode(Manner::Ordered(Spent::DeadLetter), false),
    mode(Manner::Ordered(Spent::Park), false),
    mode(Manner::Ordered(Spent::Skip), false),
    mode(Manner::Fair, false),
    mode(Manner::Plain, true),
    mode(Manner::Fair, true),
];

impl Mode {
    /// That of a seed: eight seeds in a row have all of them.
    pub(super) fn of(seed: u64) -> Self {
        let modes = u64::try_from(MODES.len()).unwrap();
        MODES[usize::try_from(seed % modes).unwrap()]
    }

    pub(super) fn orders(self) -> bool {
        matches!(self.manner, Manner::Ordered(_))
    }

    /// The further arguments of `create_subscription`.
    pub(super) fn settings(self) -> String {
        let mut settings = match self.manner {
            Manner::Plain | Manner::Priorities => String::new(),
            Manner::Ordered(spent) => {
                let policy = match spent {
                    Spent::DeadLetter => "dead_letter",
                    Spent::Park => "park",
                    Spent::Skip => "skip",
                };
                format!(", 'enable_ordering', true, 'ordering_failure', '{policy}'")
            }
            Manner::Fair => format!(", 'fairness_key', '{FAIRNESS_KEY}'"),
        };
        if self.limited {
            settings += &format!(
                ", 'max_in_flight', {MAX_IN_FLIGHT}, 'max_rate', {MAX_RATE}, \
                 'max_in_flight_per_consumer', {MAX_IN_FLIGHT_PER_CONSUMER}"
            );
        }
        settings
    }
}

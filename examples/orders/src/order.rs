//! The order: what may happen to it, and in which order.

use chrono::{DateTime, Utc};
use cqrs_core::{Aggregate, Decide, DomainError, DomainEvent, Root, Sourced};
use serde::{Deserialize, Serialize};

/// What happens to an order.
///
/// An event occurs when the shop learns of it, which is never before the one that it follows. When it
/// took place by the records of others, as far as they say, is its `at`: a carrier may have taken a
/// parcel before its payment was approved.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, DomainEvent)]
#[event(aggregate = "order")]
pub(crate) enum OrderEvent {
    Placed {
        customer: String,
        /// The last day on which it may arrive.
        promised: DateTime<Utc>,
    },
    Approved {
        at: Option<DateTime<Utc>>,
    },
    Invoiced,
    PutIntoWork,
    FoundUnavailable,
    Shipped {
        at: Option<DateTime<Utc>>,
    },
    Delivered {
        customer: String,
        /// Where it is known when it arrived.
        arrival: Option<Arrival>,
    },
    Cancelled {
        customer: String,
    },
    FlaggedLate {
        customer: String,
    },
}

/// When an order arrived, and how long that took.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Arrival {
    pub(crate) at: DateTime<Utc>,
    /// Since it was placed.
    pub(crate) minutes: i64,
    /// The days after the one that it was promised for; 0 if it was not late.
    pub(crate) days_late: i64,
}

/// Where an order is, in the words of the file.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Status {
    #[default]
    Created,
    Approved,
    Invoiced,
    Processing,
    Unavailable,
    Shipped,
    Delivered,
    Canceled,
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Created => "created",
            Self::Approved => "approved",
            Self::Invoiced => "invoiced",
            Self::Processing => "processing",
            Self::Unavailable => "unavailable",
            Self::Shipped => "shipped",
            Self::Delivered => "delivered",
            Self::Canceled => "canceled",
        })
    }
}

impl std::str::FromStr for Status {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let all = [
            Self::Created,
            Self::Approved,
            Self::Invoiced,
            Self::Processing,
            Self::Unavailable,
            Self::Shipped,
            Self::Delivered,
            Self::Canceled,
        ];
        let found = all.into_iter().find(|status| status.to_string() == text);
        found.ok_or_else(|| format!("no status of an order: {text}"))
    }
}

/// An order, as the fold of its events.
#[derive(Debug, Clone, Aggregate)]
#[aggregate(sourced, event = OrderEvent, tenant)]
pub(crate) struct Order {
    #[aggregate(id)]
    pub(crate) id: String,
    #[aggregate(root)]
    pub(crate) root: Root<OrderEvent>,
    pub(crate) customer: String,
    pub(crate) status: Status,
    pub(crate) promised: Option<DateTime<Utc>>,
    pub(crate) approved_at: Option<DateTime<Utc>>,
    pub(crate) shipped_at: Option<DateTime<Utc>>,
    pub(crate) delivered_at: Option<DateTime<Utc>>,
    pub(crate) is_late: bool,
}

impl Sourced for Order {
    fn apply(&mut self, event: &OrderEvent) {
        match event {
            OrderEvent::Placed { customer, promised } => {
                self.customer.clone_from(customer);
                self.promised = Some(*promised);
            }
            OrderEvent::Approved { at } => {
                self.status = Status::Approved;
                self.approved_at = *at;
            }
            OrderEvent::Invoiced => self.status = Status::Invoiced,
            OrderEvent::PutIntoWork => self.status = Status::Processing,
            OrderEvent::FoundUnavailable => self.status = Status::Unavailable,
            OrderEvent::Shipped { at } => {
                self.status = Status::Shipped;
                self.shipped_at = *at;
            }
            OrderEvent::Delivered { arrival, .. } => {
                self.status = Status::Delivered;
                self.delivered_at = arrival.as_ref().map(|arrival| arrival.at);
            }
            OrderEvent::Cancelled { .. } => self.status = Status::Canceled,
            OrderEvent::FlaggedLate { .. } => self.is_late = true,
        }
    }
}

/// What is to happen to an order.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Step {
    pub(crate) kind: StepKind,
    /// When the shop learns of it.
    pub(crate) known_at: DateTime<Utc>,
    /// When it took place, where that is on record.
    pub(crate) at: Option<DateTime<Utc>>,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum StepKind {
    Place {
        customer: String,
        promised: DateTime<Utc>,
    },
    Approve,
    Invoice,
    PutIntoWork,
    FindUnavailable,
    Ship,
    Deliver,
    Cancel,
    FlagLate,
}

/// A step that an order cannot take.
#[derive(Debug, thiserror::Error)]
#[error("order {order} is {status}: {step:?} is no next step")]
pub(crate) struct Refused {
    order: String,
    status: Status,
    step: StepKind,
}

impl DomainError for Refused {}

impl Decide<Step> for Order {
    type Error = Refused;

    fn decide(&self, step: Step) -> Result<Vec<OrderEvent>, Refused> {
        use Status::{Approved, Canceled, Created, Delivered, Invoiced, Processing, Shipped};
        let (status, is_new) = (self.status, self.root.version() == 0);
        let customer = self.customer.clone();
        let is_paid = matches!(status, Approved | Invoiced | Processing);
        let event = match step.kind.clone() {
            StepKind::Place { customer, promised } if is_new => {
                OrderEvent::Placed { customer, promised }
            }
            StepKind::Approve if status == Created && !is_new => {
                OrderEvent::Approved { at: step.at }
            }
            StepKind::Invoice if is_paid => OrderEvent::Invoiced,
            StepKind::PutIntoWork if is_paid => OrderEvent::PutIntoWork,
            StepKind::FindUnavailable if is_paid => OrderEvent::FoundUnavailable,
            StepKind::Ship if is_paid => OrderEvent::Shipped { at: step.at },
            StepKind::Deliver if status == Shipped => self.delivered(step.at),
            StepKind::Cancel if status != Canceled && !is_new => OrderEvent::Cancelled { customer },
            // What was delivered or cancelled meanwhile is not late any more.
            StepKind::FlagLate if matches!(status, Delivered | Canceled) || self.is_late => {
                return Ok(Vec::new());
            }
            StepKind::FlagLate if !is_new => OrderEvent::FlaggedLate { customer },
            step => {
                let order = self.id.clone();
                return Err(Refused {
                    order,
                    status,
                    step,
                });
            }
        };
        Ok(vec![event])
    }
}

impl Order {
    fn delivered(&self, at: Option<DateTime<Utc>>) -> OrderEvent {
        let arrival = at.map(|at| {
            let placed = self.root.stamps().created_at.unwrap_or(at);
            let after = |day: DateTime<Utc>| at.date_naive() - day.date_naive();
            let days_late = self.promised.map_or(0, |day| after(day).num_days().max(0));
            Arrival {
                at,
                minutes: (at - placed).num_minutes(),
                days_late,
            }
        });
        OrderEvent::Delivered {
            customer: self.customer.clone(),
            arrival,
        }
    }
}

/// From when on an order that was promised for a day is late.
pub(crate) fn late_from(promised: DateTime<Utc>) -> DateTime<Utc> {
    promised + chrono::TimeDelta::days(1)
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;
    use cqrs_core::testing::given;

    use super::*;

    fn deliver(at: Option<DateTime<Utc>>) -> Step {
        Step {
            kind: StepKind::Deliver,
            known_at: at.unwrap_or_default(),
            at,
        }
    }

    fn shipped(promised: DateTime<Utc>) -> [OrderEvent; 3] {
        let customer = "ann".to_owned();
        [
            OrderEvent::Placed { customer, promised },
            OrderEvent::Approved { at: None },
            OrderEvent::Shipped { at: None },
        ]
    }

    #[test]
    fn a_delivery_tells_how_long_it_took_and_how_late_it_is() {
        let placed = DateTime::UNIX_EPOCH;
        let promised = placed + TimeDelta::days(7);
        for (hours, days_late) in [(24, 0), (8 * 24 - 1, 0), (8 * 24, 1), (10 * 24 - 1, 2)] {
            let at = placed + TimeDelta::hours(hours);
            let arrival = Arrival {
                at,
                minutes: 60 * hours,
                days_late,
            };
            given::<Order>("a".to_owned(), shipped(promised))
                .at(placed)
                .when_decides(deliver(Some(at)))
                .then([OrderEvent::Delivered {
                    customer: "ann".to_owned(),
                    arrival: Some(arrival),
                }]);
        }
    }

    #[test]
    fn a_delivery_without_a_time_has_no_delay() {
        given::<Order>("a".to_owned(), shipped(DateTime::UNIX_EPOCH))
            .when_decides(deliver(None))
            .then([OrderEvent::Delivered {
                customer: "ann".to_owned(),
                arrival: None,
            }]);
    }

    #[test]
    fn what_was_not_shipped_is_not_delivered() {
        given::<Order>("a".to_owned(), [OrderEvent::Approved { at: None }])
            .when_decides(deliver(None))
            .then_error_if(|refused| assert_eq!(refused.step, StepKind::Deliver));
    }
}

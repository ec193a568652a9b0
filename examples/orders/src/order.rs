//! The order: what may happen to it, and in which order.

use chrono::{DateTime, Utc};
use cqrs_core::{Aggregate, Decide, DomainError, DomainEvent, Root, Sourced};
use serde::{Deserialize, Serialize};

/// What happens to an order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, DomainEvent)]
#[event(aggregate = "order")]
pub(crate) enum OrderEvent {
    Placed {
        customer: String,
        /// The last day on which it may arrive.
        promised: DateTime<Utc>,
    },
    Approved,
    Invoiced,
    PutIntoWork,
    FoundUnavailable,
    Shipped,
    Delivered {
        customer: String,
        /// After how many days.
        days: i64,
        is_late: bool,
    },
    Cancelled {
        customer: String,
    },
    FlaggedLate {
        customer: String,
    },
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
    pub(crate) is_late: bool,
}

impl Sourced for Order {
    fn apply(&mut self, event: &OrderEvent) {
        match event {
            OrderEvent::Placed { customer, promised } => {
                self.customer.clone_from(customer);
                self.promised = Some(*promised);
            }
            OrderEvent::Approved => self.status = Status::Approved,
            OrderEvent::Invoiced => self.status = Status::Invoiced,
            OrderEvent::PutIntoWork => self.status = Status::Processing,
            OrderEvent::FoundUnavailable => self.status = Status::Unavailable,
            OrderEvent::Shipped => self.status = Status::Shipped,
            OrderEvent::Delivered { .. } => self.status = Status::Delivered,
            OrderEvent::Cancelled { .. } => self.status = Status::Canceled,
            OrderEvent::FlaggedLate { .. } => self.is_late = true,
        }
    }
}

/// What is to happen to an order, and when it did.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Step {
    pub(crate) kind: StepKind,
    pub(crate) at: DateTime<Utc>,
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
            StepKind::Approve if status == Created && !is_new => OrderEvent::Approved,
            StepKind::Invoice if is_paid => OrderEvent::Invoiced,
            StepKind::PutIntoWork if is_paid => OrderEvent::PutIntoWork,
            StepKind::FindUnavailable if is_paid => OrderEvent::FoundUnavailable,
            StepKind::Ship if is_paid => OrderEvent::Shipped,
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
    fn delivered(&self, at: DateTime<Utc>) -> OrderEvent {
        let placed = self.root.stamps().created_at.unwrap_or(at);
        OrderEvent::Delivered {
            customer: self.customer.clone(),
            days: (at - placed).num_days(),
            is_late: self.promised.is_some_and(|day| at >= late_from(day)),
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

    #[test]
    fn a_delivery_tells_its_days_and_whether_it_is_late() {
        let placed = DateTime::UNIX_EPOCH;
        let customer = || "ann".to_owned();
        let promised = placed + TimeDelta::days(7);
        for (hours, days, is_late) in [(24, 1, false), (8 * 24 - 1, 7, false), (8 * 24, 8, true)] {
            let before = [
                OrderEvent::Placed {
                    customer: customer(),
                    promised,
                },
                OrderEvent::Approved,
                OrderEvent::Shipped,
            ];
            let deliver = Step {
                kind: StepKind::Deliver,
                at: placed + TimeDelta::hours(hours),
            };
            given::<Order>("a".to_owned(), before)
                .at(placed)
                .when_decides(deliver)
                .then([OrderEvent::Delivered {
                    customer: customer(),
                    days,
                    is_late,
                }]);
        }
    }

    #[test]
    fn what_was_not_shipped_is_not_delivered() {
        let deliver = Step {
            kind: StepKind::Deliver,
            at: DateTime::UNIX_EPOCH,
        };
        given::<Order>("a".to_owned(), [OrderEvent::Approved])
            .when_decides(deliver)
            .then_error_if(|refused| assert_eq!(refused.step, StepKind::Deliver));
    }
}

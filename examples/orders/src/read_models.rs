//! What is read: the orders, the customers, and the deliveries of each month.

use chrono::{DateTime, Utc};
use cqrs_core::{Envelope, ReadModel, Result, RowProjection};

use crate::order::{Arrival, OrderEvent, Status};

/// An order in the list.
#[derive(Debug, Clone, PartialEq, ReadModel)]
#[read_model(table = "order_list", tenant)]
pub(crate) struct OrderRow {
    #[read_model(key)]
    pub(crate) id: String,
    pub(crate) customer: String,
    #[mapper(text)]
    pub(crate) status: Status,
    pub(crate) placed_at: DateTime<Utc>,
    pub(crate) promised: DateTime<Utc>,
    /// When that took place, where it did and is on record; so with the next two.
    pub(crate) approved_at: Option<DateTime<Utc>>,
    pub(crate) shipped_at: Option<DateTime<Utc>>,
    pub(crate) delivered_at: Option<DateTime<Utc>>,
    pub(crate) is_late: bool,
    /// When the shop last learned something of it.
    pub(crate) changed_at: DateTime<Utc>,
}

/// Keeps [`OrderRow`]s.
pub(crate) struct OrderList;

impl RowProjection for OrderList {
    type Event = OrderEvent;
    type Row = OrderRow;

    const NAME: &'static str = "order_list";
    const ROW_PER_AGGREGATE: bool = true;

    fn key(&self, event: &Envelope<OrderEvent>) -> Result<Option<String>> {
        Ok(Some(event.aggregate_id_str().to_owned()))
    }

    fn apply(&self, row: &mut Option<OrderRow>, event: &Envelope<OrderEvent>) -> Result<()> {
        if let OrderEvent::Placed { customer, promised } = event.payload() {
            *row = Some(OrderRow {
                id: event.aggregate_id_str().to_owned(),
                customer: customer.clone(),
                status: Status::Created,
                placed_at: event.occurred_at(),
                promised: *promised,
                approved_at: None,
                shipped_at: None,
                delivered_at: None,
                is_late: false,
                changed_at: event.occurred_at(),
            });
        }
        let Some(row) = row else { return Ok(()) };
        row.changed_at = event.occurred_at();
        row.status = match event.payload() {
            OrderEvent::Placed { .. } => Status::Created,
            OrderEvent::Approved { at } => {
                row.approved_at = *at;
                Status::Approved
            }
            OrderEvent::Invoiced => Status::Invoiced,
            OrderEvent::PutIntoWork => Status::Processing,
            OrderEvent::FoundUnavailable => Status::Unavailable,
            OrderEvent::Shipped { at } => {
                row.shipped_at = *at;
                Status::Shipped
            }
            OrderEvent::Delivered { arrival, .. } => {
                row.delivered_at = arrival.as_ref().map(|arrival| arrival.at);
                Status::Delivered
            }
            OrderEvent::Cancelled { .. } => Status::Canceled,
            OrderEvent::FlaggedLate { .. } => {
                row.is_late = true;
                row.status
            }
        };
        Ok(())
    }
}

/// What a customer has ordered.
#[derive(Debug, Clone, PartialEq, ReadModel)]
#[read_model(table = "customer_summary", tenant)]
pub(crate) struct CustomerRow {
    #[read_model(key)]
    pub(crate) customer: String,
    pub(crate) placed: i64,
    pub(crate) delivered: i64,
    pub(crate) cancelled: i64,
    /// Orders that were flagged as late.
    pub(crate) flagged: i64,
    /// By how many days deliveries were late, together.
    pub(crate) days_late: i64,
}

/// Keeps [`CustomerRow`]s.
pub(crate) struct CustomerSummary;

impl RowProjection for CustomerSummary {
    type Event = OrderEvent;
    type Row = CustomerRow;

    const NAME: &'static str = "customer_summary";

    fn key(&self, event: &Envelope<OrderEvent>) -> Result<Option<String>> {
        Ok(match event.payload() {
            OrderEvent::Placed { customer, .. }
            | OrderEvent::Delivered { customer, .. }
            | OrderEvent::Cancelled { customer }
            | OrderEvent::FlaggedLate { customer } => Some(customer.clone()),
            OrderEvent::Approved { .. }
            | OrderEvent::Invoiced
            | OrderEvent::PutIntoWork
            | OrderEvent::FoundUnavailable
            | OrderEvent::Shipped { .. } => None,
        })
    }

    fn apply(&self, row: &mut Option<CustomerRow>, event: &Envelope<OrderEvent>) -> Result<()> {
        let Some(customer) = self.key(event)? else {
            return Ok(());
        };
        let row = row.get_or_insert(CustomerRow {
            customer,
            placed: 0,
            delivered: 0,
            cancelled: 0,
            flagged: 0,
            days_late: 0,
        });
        match event.payload() {
            OrderEvent::Placed { .. } => row.placed += 1,
            OrderEvent::Delivered { arrival, .. } => {
                row.delivered += 1;
                row.days_late += arrival.as_ref().map_or(0, |arrival| arrival.days_late);
            }
            OrderEvent::Cancelled { .. } => row.cancelled += 1,
            OrderEvent::FlaggedLate { .. } => row.flagged += 1,
            OrderEvent::Approved { .. }
            | OrderEvent::Invoiced
            | OrderEvent::PutIntoWork
            | OrderEvent::FoundUnavailable
            | OrderEvent::Shipped { .. } => {}
        }
        Ok(())
    }
}

/// What arrived in a month, as far as it is known when.
///
/// Sums and a maximum, which one more delivery changes without a look at those before it. Means are
/// made of them where they are shown; a percentile would need every delivery of the month.
#[derive(Debug, Clone, PartialEq, ReadModel)]
#[read_model(table = "delivery_month", tenant)]
pub(crate) struct MonthRow {
    /// As `2018-01`.
    #[read_model(key)]
    pub(crate) month: String,
    pub(crate) deliveries: i64,
    /// How long all of them took together, from when they were placed.
    pub(crate) minutes: i64,
    /// How many arrived after the day that they were promised for.
    pub(crate) late: i64,
    /// By how many days these were late, together.
    pub(crate) days_late: i64,
    /// By how many days the latest of them was.
    pub(crate) most_days_late: i64,
}

/// Keeps [`MonthRow`]s.
pub(crate) struct DeliveryMonths;

impl DeliveryMonths {
    fn arrival(event: &OrderEvent) -> Option<&Arrival> {
        match event {
            OrderEvent::Delivered { arrival, .. } => arrival.as_ref(),
            _ => None,
        }
    }
}

impl RowProjection for DeliveryMonths {
    type Event = OrderEvent;
    type Row = MonthRow;

    const NAME: &'static str = "delivery_month";
    const EVENT_TYPES: Option<&'static [&'static str]> = Some(&["order.delivered"]);

    fn key(&self, event: &Envelope<OrderEvent>) -> Result<Option<String>> {
        let arrival = Self::arrival(event.payload());
        Ok(arrival.map(|arrival| arrival.at.format("%Y-%m").to_string()))
    }

    fn apply(&self, row: &mut Option<MonthRow>, event: &Envelope<OrderEvent>) -> Result<()> {
        let (Some(month), Some(arrival)) = (self.key(event)?, Self::arrival(event.payload()))
        else {
            return Ok(());
        };
        let row = row.get_or_insert(MonthRow {
            month,
            deliveries: 0,
            minutes: 0,
            late: 0,
            days_late: 0,
            most_days_late: 0,
        });
        row.deliveries += 1;
        row.minutes += arrival.minutes;
        row.late += i64::from(arrival.days_late > 0);
        row.days_late += arrival.days_late;
        row.most_days_late = row.most_days_late.max(arrival.days_late);
        Ok(())
    }
}

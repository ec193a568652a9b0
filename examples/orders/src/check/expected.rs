//! What the lines of the file say of each order.
//!
//! Nothing of the rest of the program is used here.

use anyhow::{Context, ensure};
use chrono::{DateTime, Datelike, NaiveDate, TimeDelta, Utc};

/// What must be known of an order.
#[derive(Debug)]
pub(super) struct Expected {
    pub(super) order: String,
    pub(super) customer: String,
    /// As the file spells it.
    pub(super) status: String,
    pub(super) purchased: DateTime<Utc>,
    pub(super) approved: Option<DateTime<Utc>>,
    pub(super) shipped: Option<DateTime<Utc>>,
    pub(super) delivered: Option<DateTime<Utc>>,
    pub(super) promised: DateTime<Utc>,
    /// What happened to it, in order.
    pub(super) events: Vec<Happened>,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Happened {
    pub(super) event_type: &'static str,
    pub(super) known_at: DateTime<Utc>,
}

/// An order, at some time.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Then {
    pub(super) version: u64,
    pub(super) status: String,
    pub(super) approved: Option<DateTime<Utc>>,
    pub(super) shipped: Option<DateTime<Utc>>,
    pub(super) delivered: Option<DateTime<Utc>>,
    pub(super) is_late: bool,
}

/// Reads the lines.
pub(super) fn orders(text: &[u8]) -> anyhow::Result<Vec<Expected>> {
    let mut reader = csv::Reader::from_reader(text);
    let header = reader.headers()?.clone();
    let column = |name: &str| {
        let at = header.iter().position(|column| column == name);
        at.with_context(|| format!("no column {name}"))
    };
    let columns = [
        column("order_id")?,
        column("customer_id")?,
        column("order_status")?,
        column("order_purchase_timestamp")?,
        column("order_approved_at")?,
        column("order_delivered_carrier_date")?,
        column("order_delivered_customer_date")?,
        column("order_estimated_delivery_date")?,
    ];
    let mut orders = Vec::new();
    for row in reader.records() {
        let row = row?;
        orders.push(Expected::of(columns.map(|at| row.get(at).unwrap_or("")))?);
    }
    Ok(orders)
}

impl Expected {
    fn of(line: [&str; 8]) -> anyhow::Result<Self> {
        let [
            order,
            customer,
            status,
            purchased,
            approved,
            shipped,
            delivered,
            promised,
        ] = line;
        let mut order = Self {
            order: order.to_owned(),
            customer: customer.to_owned(),
            status: status.to_owned(),
            purchased: minute(purchased)?.context("no time of purchase")?,
            approved: minute(approved)?,
            shipped: minute(shipped)?,
            delivered: minute(delivered)?,
            promised: minute(promised)?.context("no promised day")?,
            events: Vec::new(),
        };
        order.events = order.happened();
        Ok(order)
    }

    /// Its events. Each is known when the last of the times up to it has come.
    fn happened(&self) -> Vec<Happened> {
        let (approved, shipped, delivered) = (self.approved, self.shipped, self.delivered);
        let reached = |statuses: &[&str]| statuses.contains(&self.status.as_str());
        let is_delivered = delivered.is_some() || reached(&["delivered"]);
        let is_shipped = is_delivered || shipped.is_some() || reached(&["shipped"]);
        let prepared = ["approved", "invoiced", "processing", "unavailable"];
        let is_approved = is_shipped || approved.is_some() || reached(&prepared);
        let is = |status: &str| self.status == status;

        let mut events = Vec::new();
        let mut known_at = self.purchased;
        for (event_type, has_happened, time) in [
            ("order.placed", true, None),
            ("order.approved", is_approved, approved),
            ("order.shipped", is_shipped, shipped),
            ("order.delivered", is_delivered, delivered),
            ("order.invoiced", is("invoiced"), None),
            ("order.put_into_work", is("processing"), None),
            ("order.found_unavailable", is("unavailable"), None),
            ("order.cancelled", is("canceled"), None),
        ] {
            if has_happened {
                known_at = known_at.max(time.unwrap_or(known_at));
                events.push(Happened {
                    event_type,
                    known_at,
                });
            }
        }
        // A flag comes before what else is known at its time.
        if let Some(flag) = self.flagged(&events) {
            let at = events.partition_point(|event| event.known_at < flag.known_at);
            events.insert(at, flag);
        }
        events
    }

    /// The flag of an order that is open at the end of the day that it was promised for, or of the
    /// day that it was placed on.
    fn flagged(&self, events: &[Happened]) -> Option<Happened> {
        let last_day = self.promised.max(self.purchased).date_naive();
        let known_at = midnight(last_day + TimeDelta::days(1));
        let closes =
            |event: &&Happened| ["order.delivered", "order.cancelled"].contains(&event.event_type);
        let closed = events.iter().find(closes);
        let is_flagged = closed.is_none_or(|closed| closed.known_at >= known_at);
        is_flagged.then_some(Happened {
            event_type: "order.flagged_late",
            known_at,
        })
    }

    pub(super) fn is_flagged(&self) -> bool {
        self.has("order.flagged_late")
    }

    pub(super) fn has(&self, event_type: &str) -> bool {
        self.events
            .iter()
            .any(|event| event.event_type == event_type)
    }

    /// When it arrived, also where it was cancelled after that.
    pub(super) fn arrived_at(&self) -> Option<DateTime<Utc>> {
        self.delivered
    }

    /// By how many days it arrived after the promised one.
    pub(super) fn days_late(&self) -> i64 {
        let days = |time: DateTime<Utc>| i64::from(time.num_days_from_ce());
        let late = self.delivered.map(|at| days(at) - days(self.promised));
        late.unwrap_or(0).max(0)
    }

    /// What is known of it at a time; `None` before it was placed.
    pub(super) fn at(&self, time: DateTime<Utc>) -> Option<Then> {
        let mut then = Then::default();
        for event in self.events.iter().filter(|event| event.known_at <= time) {
            then.version += 1;
            let status = match event.event_type {
                "order.placed" => "created",
                "order.put_into_work" => "processing",
                "order.found_unavailable" => "unavailable",
                "order.cancelled" => "canceled",
                "order.flagged_late" => {
                    then.is_late = true;
                    continue;
                }
                // Named as the status.
                other => other.trim_start_matches("order."),
            };
            then.status = status.to_owned();
            match status {
                "approved" => then.approved = self.approved,
                "shipped" => then.shipped = self.shipped,
                "delivered" => then.delivered = self.delivered,
                _ => {}
            }
        }
        (then.version > 0).then_some(then)
    }
}

fn midnight(day: NaiveDate) -> DateTime<Utc> {
    day.and_time(chrono::NaiveTime::MIN).and_utc()
}

/// A time as `7/24/2018 20:41`: month, day, year.
fn minute(text: &str) -> anyhow::Result<Option<DateTime<Utc>>> {
    if text.is_empty() {
        return Ok(None);
    }
    let numbers: Vec<u32> = text
        .split(['/', ' ', ':'])
        .map(|number| number.parse().with_context(|| format!("time {text}")))
        .collect::<anyhow::Result<_>>()?;
    ensure!(numbers.len() == 5, "time {text}");
    let year = i32::try_from(numbers[2])?;
    let day = NaiveDate::from_ymd_opt(year, numbers[0], numbers[1]);
    let time = day.and_then(|day| day.and_hms_opt(numbers[3], numbers[4], 0));
    time.map(|time| Some(time.and_utc()))
        .with_context(|| format!("time {text}"))
}

//! Made-up orders, for a run without a file.

use std::fmt::Write;

use chrono::{DateTime, TimeDelta, Utc};

/// How many there are.
const ORDERS: i64 = 120;

/// A file of orders, the same each time.
pub(crate) fn csv() -> String {
    let mut text = "order_id,customer_id,order_status,order_purchase_timestamp,order_approved_at,\
         order_delivered_carrier_date,order_delivered_customer_date,order_estimated_delivery_date\n"
        .to_owned();
    // The first of January 2018.
    let start = DateTime::<Utc>::from_timestamp(1_514_764_800, 0).unwrap_or_default();
    for number in 0..ORDERS {
        let hours = |hours: i64| start + TimeDelta::hours(7 * number + hours);
        let promised = (hours(12 * 24))
            .date_naive()
            .and_time(chrono::NaiveTime::MIN);
        // Each tenth order takes longer than it was promised for.
        let days = if number % 10 == 7 { 17 } else { 3 + number % 6 };
        let (status, times) = match number % 24 {
            3 => ("canceled", [None, None, None]),
            5 => ("canceled", [Some(1), None, None]),
            9 => ("unavailable", [Some(2), None, None]),
            11 => ("processing", [Some(2), None, None]),
            13 => ("invoiced", [Some(2), None, None]),
            15 => ("shipped", [Some(1), Some(40), None]),
            _ => ("delivered", [Some(1), Some(30), Some(24 * days)]),
        };
        let [approved, shipped, delivered] =
            times.map(|after| after.map_or_else(String::new, |after| format(hours(after))));
        writeln!(
            text,
            "order-{number:03},customer-{:02},{status},{},{approved},{shipped},{delivered},{}",
            number % 40,
            format(hours(0)),
            format(promised.and_utc()),
        )
        .expect("writing to a String cannot fail");
    }
    text
}

fn format(time: DateTime<Utc>) -> String {
    time.format("%-m/%-d/%Y %H:%M").to_string()
}

//! Made-up orders, for a run without a file: with the oddities that files of real shops have.

use std::fmt::Write;

use chrono::{DateTime, NaiveTime, TimeDelta, Utc};

const HEADER: &str = "order_id,customer_id,order_status,order_purchase_timestamp,order_approved_at,\
     order_delivered_carrier_date,order_delivered_customer_date,order_estimated_delivery_date";

/// A file of so many orders, the same for the same seed.
///
/// Lines are in no order and end as on Windows. Some steps have the time of the one before, or an
/// earlier one; some have happened without one.
pub(crate) fn csv(seed: u64, orders: usize) -> String {
    let mut random = Random(seed);
    let mut text = format!("{HEADER}\r\n");
    for number in 0..orders {
        let line = line(&mut random, number, orders);
        write!(text, "{line}\r\n").expect("writing to a String cannot fail");
    }
    text
}

fn line(random: &mut Random, number: usize, orders: usize) -> String {
    // The first of October 2017, and a year from there.
    let start = DateTime::<Utc>::from_timestamp(1_506_816_000, 0).unwrap_or_default();
    let purchased = start + TimeDelta::minutes(random.below(365 * 24 * 60));
    let promised = (purchased + TimeDelta::days(4 + random.below(25))).date_naive();
    let approved = match random.below(10) {
        0 => purchased,
        1 | 2 => purchased + TimeDelta::minutes(random.below(3 * 24 * 60)),
        _ => purchased + TimeDelta::minutes(random.below(30)),
    };
    let shipped = match random.below(20) {
        0 => approved - TimeDelta::minutes(1 + random.below(24 * 60)),
        1 => approved,
        _ => approved + TimeDelta::minutes(1 + random.below(5 * 24 * 60)),
    };
    let delivered = match random.below(40) {
        0 => shipped,
        1 => approved - TimeDelta::minutes(1 + random.below(60)),
        2 => promised.and_time(NaiveTime::MIN).and_utc() + TimeDelta::days(random.below(2)),
        3..8 => {
            promised.and_time(NaiveTime::MIN).and_utc()
                + TimeDelta::minutes(random.below(40 * 24 * 60))
        }
        _ => shipped + TimeDelta::minutes(random.below(12 * 24 * 60)),
    };
    let (status, times) = match random.below(40) {
        0 => ("created", 0),
        1 => ("approved", 1),
        2 => ("invoiced", 1),
        3 => ("processing", 1),
        4 => ("unavailable", 1),
        5..8 => ("canceled", random.below(4)),
        8..10 => ("shipped", 2),
        _ => ("delivered", 3),
    };
    let mut text = format!(
        "order-{number:05},customer-{:05},{status},{}",
        random.below(1 + (orders / 3) as i64),
        format(purchased)
    );
    for (index, time) in (0..).zip([approved, shipped, delivered]) {
        let is_known = index < times && random.below(60) > 0;
        let time = if is_known {
            format(time)
        } else {
            String::new()
        };
        write!(text, ",{time}").expect("writing to a String cannot fail");
    }
    format!(
        "{text},{}",
        format(promised.and_time(NaiveTime::MIN).and_utc())
    )
}

fn format(time: DateTime<Utc>) -> String {
    time.format("%-m/%-d/%Y %-H:%M").to_string()
}

/// The generator splitmix64.
struct Random(u64);

impl Random {
    /// A number from 0 on and below this one.
    fn below(&mut self, end: i64) -> i64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let number = (z ^ (z >> 31)) % end.unsigned_abs().max(1);
        number.cast_signed()
    }
}

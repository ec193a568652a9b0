//! Charts: horizontal bars in SVG, a panel for each case, a bar for each side with the lowest and
//! the highest round.

use std::fmt::Write as _;

use crate::harness::Spread;

/// The bars of one case.
#[derive(Debug)]
pub(super) struct Panel {
    pub(super) title: String,
    pub(super) unit: String,
    pub(super) bars: Vec<Bar>,
}

/// A side.
#[derive(Debug)]
pub(super) struct Bar {
    pub(super) name: String,
    pub(super) value: Spread,
}

const WIDTH: f64 = 760.0;
/// Where bars begin, and how long the longest is.
const LEFT: f64 = 160.0;
const LENGTH: f64 = 460.0;
const LINE: f64 = 22.0;
/// Colours in turn, which also those tell apart who do not see all colours.
const COLOURS: [&str; 6] = [
    "#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00",
];

/// The chart of a part.
pub(super) fn svg(part: &str, panels: &[Panel]) -> String {
    let mut body = String::new();
    let mut y = 1.5 * LINE;
    text(
        &mut body,
        10.0,
        y,
        "start",
        &format!("<tspan font-weight=\"bold\">{}</tspan>", escape(part)),
    );
    for panel in panels {
        y += 1.5 * LINE;
        let title = format!("{} ({}, from 0)", panel.title, panel.unit);
        text(&mut body, 10.0, y, "start", &escape(&title));
        let largest = panel.bars.iter().map(|bar| bar.value.max);
        let largest = largest.fold(f64::MIN_POSITIVE, f64::max);
        for (bar, colour) in panel.bars.iter().zip(COLOURS.iter().cycle()) {
            y += LINE;
            draw(&mut body, y, bar, colour, LENGTH / largest);
        }
    }
    let height = y + LINE;
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
         font-family=\"sans-serif\" font-size=\"13\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n{body}</svg>\n"
    )
}

/// A bar with its name, its value, and a line from the lowest to the highest.
fn draw(body: &mut String, y: f64, bar: &Bar, colour: &str, scale: f64) {
    let Spread { min, value, max } = bar.value;
    let (top, middle) = (y - 13.0, y - 5.0);
    let at = |value: f64| LEFT + value * scale;
    let name = bar
        .name
        .parse()
        .map_or_else(|_| bar.name.clone(), |number| grouped(number, 0));
    text(body, LEFT - 8.0, y, "end", &escape(&name));
    // Writing to a string does not fail.
    let _ = writeln!(
        body,
        "<rect x=\"{LEFT}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"16\" fill=\"{colour}\"/>",
        value * scale
    );
    let _ = writeln!(
        body,
        "<path d=\"M{:.1} {middle:.1}H{:.1}\" stroke=\"black\" stroke-width=\"2\"/>",
        at(min),
        at(max)
    );
    let decimals = usize::from(value < 100.0);
    text(body, at(max) + 8.0, y, "start", &grouped(value, decimals));
}

/// A number with its thousands apart.
fn grouped(number: f64, decimals: usize) -> String {
    let mut text = format!("{number:.decimals$}");
    let whole = text.find('.').unwrap_or(text.len());
    for place in (1..whole).rev().filter(|place| (whole - place) % 3 == 0) {
        text.insert(place, ',');
    }
    text
}

fn text(body: &mut String, x: f64, y: f64, anchor: &str, content: &str) {
    let _ = writeln!(
        body,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{content}</text>"
    );
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_bar_is_as_long_as_may_be_and_others_in_proportion() {
        let bar = |name: &str, value: f64| Bar {
            name: name.to_owned(),
            value: Spread::of([value]),
        };
        let panel = Panel {
            title: "load & save".to_owned(),
            unit: "per second".to_owned(),
            bars: vec![bar("ours", 2000.0), bar("a<b", 500.0)],
        };
        let svg = svg("write", &[panel]);
        let widths: Vec<&str> = svg
            .lines()
            .filter(|line| line.contains("fill=\"#"))
            .filter_map(|line| line.split("width=\"").nth(1)?.split('"').next())
            .collect();
        assert_eq!(widths, ["460.0", "115.0"]);
        assert!(svg.contains("load &amp; save (per second, from 0)"));
        assert!(svg.contains("a&lt;b"));
        assert_eq!(svg.matches("<text").count(), svg.matches("</text>").count());
    }

    #[test]
    fn thousands_are_apart() {
        let told = [
            (0.0, 0),
            (12.34, 1),
            (999.0, 0),
            (1000.5, 1),
            (10_000_000.0, 0),
        ];
        let told = told.map(|(number, decimals)| grouped(number, decimals));
        assert_eq!(told, ["0", "12.3", "999", "1,000.5", "10,000,000"]);
    }

    #[test]
    fn nothing_measured_is_a_chart_without_bars() {
        let panel = Panel {
            title: "none".to_owned(),
            unit: "us".to_owned(),
            bars: Vec::new(),
        };
        assert!(!svg("write", &[panel]).contains("NaN"));
    }
}

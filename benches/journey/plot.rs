//! Line charts as SVG.
//!
//! Owns: axes, ticks, lines and the legend. Never here: what is plotted.

use std::fmt::Write as _;

use crate::report::number;

/// One line of a chart.
#[derive(Debug)]
pub struct Line {
    pub name: String,
    pub points: Vec<(f64, f64)>,
}

/// How an axis is divided.
#[derive(Debug, Clone)]
pub enum Axis {
    /// Evenly, from zero.
    Linear,
    /// Evenly between the given places, each with its label.
    Places(Vec<(f64, String)>),
    /// By powers of ten.
    Log,
}

/// One picture.
#[derive(Debug)]
pub struct Chart {
    /// The part it belongs to.
    pub part: &'static str,
    /// Of the file.
    pub name: &'static str,
    pub title: String,
    pub x_label: &'static str,
    pub y_label: &'static str,
    pub x: Axis,
    pub y: Axis,
    pub lines: Vec<Line>,
}

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 400.0;
const LEFT: f64 = 78.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 66.0;
const BOTTOM: f64 = 52.0;
const COLOURS: [&str; 5] = ["#0f766e", "#b45309", "#6b7280", "#7c3aed", "#be123c"];

/// A place on an axis: from 0 to 1, with what is written there.
struct Scale {
    from: f64,
    to: f64,
    axis: Axis,
    ticks: Vec<(f64, String)>,
}

impl Scale {
    fn new(axis: &Axis, values: &[f64]) -> Self {
        let max = values.iter().copied().fold(0.0, f64::max);
        match axis {
            Axis::Linear => {
                let step = nice(max / 5.0);
                let count = (max / step).ceil().max(1.0);
                let ticks = (0..=count as u32)
                    .map(|at| f64::from(at) * step)
                    .map(|value| (value, number(value)))
                    .collect();
                Self {
                    from: 0.0,
                    to: count * step,
                    axis: axis.clone(),
                    ticks,
                }
            }
            Axis::Log => {
                let min = values
                    .iter()
                    .copied()
                    .filter(|v| *v > 0.0)
                    .fold(max, f64::min);
                let low = min.max(1e-3).log10().floor() as i32;
                let high = (max.max(1e-3).log10().ceil() as i32).max(low + 1);
                let ticks = (low..=high)
                    .map(|power| (10_f64.powi(power), number(10_f64.powi(power))))
                    .collect();
                Self {
                    from: f64::from(low),
                    to: f64::from(high),
                    axis: axis.clone(),
                    ticks,
                }
            }
            Axis::Places(places) => Self {
                from: 0.0,
                to: (places.len().max(2) - 1) as f64,
                axis: axis.clone(),
                ticks: places.clone(),
            },
        }
    }

    fn place(&self, value: f64) -> f64 {
        let on = match &self.axis {
            Axis::Linear => value,
            Axis::Log => value.max(10_f64.powf(self.from)).log10(),
            Axis::Places(places) => places
                .iter()
                .position(|(place, _)| (place - value).abs() < 1e-9)
                .unwrap_or(0) as f64,
        };
        (on - self.from) / (self.to - self.from)
    }
}

/// 1, 2 or 5 times a power of ten, not below `step`.
fn nice(step: f64) -> f64 {
    if step <= 0.0 {
        return 1.0;
    }
    let power = 10_f64.powf(step.log10().floor());
    let times = [1.0, 2.0, 5.0, 10.0];
    let fits = times.iter().find(|times| *times * power >= step * 0.999);
    fits.unwrap_or(&10.0) * power
}

impl Chart {
    /// The picture: readable on white and on black pages.
    pub fn svg(&self) -> String {
        let all = |of: fn(&(f64, f64)) -> f64| -> Vec<f64> {
            self.lines
                .iter()
                .flat_map(|line| line.points.iter().map(of))
                .collect()
        };
        let (x, y) = (
            Scale::new(&self.x, &all(|p| p.0)),
            Scale::new(&self.y, &all(|p| p.1)),
        );
        let across = |value: f64| LEFT + x.place(value) * (WIDTH - LEFT - RIGHT);
        let down = |value: f64| HEIGHT - BOTTOM - y.place(value) * (HEIGHT - TOP - BOTTOM);
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
             font-family=\"system-ui, sans-serif\" font-size=\"12\" fill=\"#1f2937\">\n\
             <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" rx=\"6\" fill=\"#ffffff\"/>\n\
             <text x=\"{LEFT}\" y=\"26\" font-size=\"15\" font-weight=\"600\">{}</text>\n",
            escape(&self.title)
        );
        for (value, label) in &y.ticks {
            let at = down(*value);
            let _ = writeln!(
                svg,
                "<line x1=\"{LEFT}\" x2=\"{}\" y1=\"{at:.1}\" y2=\"{at:.1}\" stroke=\"#e5e7eb\"/>\
                 <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>",
                WIDTH - RIGHT,
                LEFT - 8.0,
                at + 4.0
            );
        }
        for (value, label) in &x.ticks {
            let _ = writeln!(
                svg,
                "<text x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
                across(*value),
                HEIGHT - BOTTOM + 18.0,
                escape(label)
            );
        }
        let _ = writeln!(
            svg,
            "<text x=\"{}\" y=\"{}\" text-anchor=\"middle\" fill=\"#6b7280\">{}</text>\
             <text transform=\"translate(16 {}) rotate(-90)\" text-anchor=\"middle\" \
             fill=\"#6b7280\">{}</text>",
            LEFT + (WIDTH - LEFT - RIGHT) / 2.0,
            HEIGHT - 12.0,
            escape(self.x_label),
            TOP + (HEIGHT - TOP - BOTTOM) / 2.0,
            escape(self.y_label)
        );
        let mut legend = LEFT;
        for (line, colour) in self.lines.iter().zip(COLOURS.iter().cycle()) {
            let points: Vec<String> = line
                .points
                .iter()
                .map(|(px, py)| format!("{:.1},{:.1}", across(*px), down(*py)))
                .collect();
            let _ = writeln!(
                svg,
                "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\" \
                 stroke-linejoin=\"round\"/>",
                points.join(" ")
            );
            if points.len() <= 40 {
                for (px, py) in &line.points {
                    let (cx, cy) = (across(*px), down(*py));
                    let _ = writeln!(
                        svg,
                        "<circle cx=\"{cx:.1}\" cy=\"{cy:.1}\" r=\"3\" fill=\"{colour}\"/>"
                    );
                }
            }
            let _ = writeln!(
                svg,
                "<rect x=\"{legend:.1}\" y=\"40\" width=\"14\" height=\"3\" fill=\"{colour}\"/>\
                 <text x=\"{:.1}\" y=\"46\">{}</text>",
                legend + 20.0,
                escape(&line.name)
            );
            legend += 44.0 + line.name.chars().count() as f64 * 6.6;
        }
        svg.push_str("</svg>\n");
        svg
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

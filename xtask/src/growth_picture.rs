//! The picture of `cargo xtask growth`: a panel for each axis, sizes in powers of ten, microseconds from zero.

use std::fmt::Write;

/// One diagram: points of size and microseconds.
#[derive(Debug, Clone)]
pub(crate) struct Panel {
    pub title: String,
    pub ours: Vec<(f64, f64)>,
    pub nginx: Vec<(f64, f64)>,
}

/// A line: its name, color, and where its name stands in the legend.
const OURS: (&str, &str, f64) = ("Tidegate", "#0969da", 70.0);
const NGINX: (&str, &str, f64) = ("nginx", "#8a8a8a", 180.0);

/// The size of a panel, and of the part of it in which lines are.
const PANEL: (f64, f64) = (400.0, 250.0);
const INSIDE: (f64, f64, f64, f64) = (52.0, 40.0, 376.0, 200.0);
const LEGEND: f64 = 34.0;

/// The whole picture, two panels beside each other.
pub(crate) fn draw(panels: &[Panel]) -> String {
    let rows = panels.len().div_ceil(2) as f64;
    let (width, height) = (2.0 * PANEL.0, rows * PANEL.1 + LEGEND);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" role=\"img\" \
         font-family=\"sans-serif\" font-size=\"12\" fill=\"#1f2328\">\n\
         <title>CPU time per request as the configuration and the connections grow</title>\n\
         <rect width=\"{width}\" height=\"{height}\" fill=\"#ffffff\"/>\n"
    );
    for (name, color, x) in [OURS, NGINX] {
        let _ = writeln!(
            out,
            "<path d=\"M{:.0} 20h24\" stroke=\"{color}\" stroke-width=\"3\"/><text x=\"{x:.0}\" y=\"24\">{name}</text>",
            x - 30.0
        );
    }
    let _ =
        writeln!(out, "<text x=\"{:.0}\" y=\"24\">CPU time per request in microseconds; less is better</text>", 260.0);
    for (n, panel) in panels.iter().enumerate() {
        let (x, y) = ((n % 2) as f64 * PANEL.0, (n / 2) as f64 * PANEL.1 + LEGEND);
        let _ = writeln!(out, "<g transform=\"translate({x:.0} {y:.0})\">\n{}</g>", panel.draw());
    }
    out + "</svg>\n"
}

impl Panel {
    fn draw(&self) -> String {
        let (left, top, right, bottom) = INSIDE;
        let all = || self.ours.iter().chain(&self.nginx);
        let step = step(all().map(|point| point.1).fold(1.0, f64::max));
        let highest = step * (all().map(|point| point.1).fold(1.0, f64::max) / step).ceil();
        let widest = all().map(|point| point.0).fold(10.0, f64::max);
        let x = |size: f64| left + (right - left) * size.log10() / widest.log10();
        let y = |us: f64| bottom - (bottom - top) * us / highest;
        let mut out = format!("<text x=\"{left}\" y=\"24\" font-weight=\"bold\">{}</text>\n", self.title);
        let mut us = 0.0;
        while us <= highest {
            let at = y(us);
            let _ = writeln!(
                out,
                "<path d=\"M{left} {at:.1}H{right}\" stroke=\"#d8dee4\"/><text x=\"{:.0}\" y=\"{:.1}\" text-anchor=\"end\">{us}</text>",
                left - 8.0,
                at + 4.0
            );
            us += step;
        }
        let mut size = 1.0;
        while size <= widest {
            let _ = writeln!(
                out,
                "<text x=\"{:.1}\" y=\"{:.0}\" text-anchor=\"middle\">{}</text>",
                x(size),
                bottom + 18.0,
                thousands(size as u64)
            );
            size *= 10.0;
        }
        for (points, (_, color, _)) in [(&self.nginx, NGINX), (&self.ours, OURS)] {
            let places: Vec<_> = points.iter().map(|(size, us)| (x(*size), y(*us))).collect();
            let path: Vec<_> = places.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
            let _ = writeln!(
                out,
                "<polyline points=\"{}\" fill=\"none\" stroke=\"{color}\" stroke-width=\"2\"/>",
                path.join(" ")
            );
            for (x, y) in places {
                let _ = writeln!(out, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"{color}\"/>");
            }
        }
        out
    }
}

/// The distance of the lines across, so that there are at most five above zero.
fn step(highest: f64) -> f64 {
    let powers = (0..6).map(|power| 10_f64.powi(power));
    let mut steps = powers.flat_map(|power| [power, 2.0 * power, 5.0 * power]);
    steps.find(|step| highest / step <= 5.0).unwrap_or(highest)
}

/// A number with commas.
fn thousands(n: u64) -> String {
    if n < 1000 { n.to_string() } else { format!("{},{:03}", thousands(n / 1000), n % 1000) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        assert_eq!([1, 999, 1000, 100_000, 1_234_567].map(thousands), ["1", "999", "1,000", "100,000", "1,234,567"]);
        assert_eq!([0.5, 4.0, 6.0, 11.0, 26.0, 90.0].map(step), [1.0, 1.0, 2.0, 5.0, 10.0, 20.0]);
    }

    #[test]
    fn a_picture() {
        let panel = |nginx| Panel { title: "sizes".to_string(), ours: vec![(1.0, 5.0), (100.0, 10.0)], nginx };
        let text = draw(&[panel(vec![(1.0, 10.0), (100.0, 0.0)]), panel(Vec::new()), panel(Vec::new())]);
        // From the lower left to the upper right, within the frame.
        assert!(text.contains("points=\"52.0,120.0 376.0,40.0\"") && text.contains("points=\"52.0,40.0 376.0,200.0\""));
        assert!(text.contains("viewBox=\"0 0 800 534\""));
        assert_eq!((text.matches("<g ").count(), text.matches("</g>").count()), (3, 3));
        assert_eq!(text.matches("<circle").count(), 8);
    }
}

//! A table before it is known where it will be read: terminal, Markdown or HTML.

/// Lines of cells under a head; the first column names the line.
#[derive(Clone, Debug, Default)]
pub(crate) struct Grid {
    head: Vec<String>,
    lines: Vec<Vec<String>>,
}

impl Grid {
    /// An empty one.
    pub(crate) fn new<'a>(head: impl IntoIterator<Item = &'a str>) -> Self {
        Self { head: head.into_iter().map(ToOwned::to_owned).collect(), lines: Vec::new() }
    }

    /// Adds a line.
    pub(crate) fn line(&mut self, cells: Vec<String>) {
        self.lines.push(cells);
    }

    /// Whether it has no line.
    pub(crate) fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// Takes away columns in which no line says anything.
    pub(crate) fn without_empty_columns(mut self) -> Self {
        let says = |cell: &String| !cell.is_empty() && cell != "–";
        let kept: Vec<bool> = (0..self.head.len())
            .map(|column| {
                column == 0 || self.lines.iter().any(|line| line.get(column).is_some_and(says))
            })
            .collect();
        for line in std::iter::once(&mut self.head).chain(&mut self.lines) {
            let mut keep = kept.iter();
            line.retain(|_| keep.next().copied().unwrap_or_default());
        }
        self
    }

    /// For a terminal: aligned, the first column to the left, the others to the right.
    pub(crate) fn text(&self) -> String {
        let lines = || std::iter::once(&self.head).chain(&self.lines);
        let mut widths = vec![0; self.head.len()];
        for line in lines() {
            for (width, cell) in widths.iter_mut().zip(line) {
                *width = cell.chars().count().max(*width);
            }
        }
        let mut text = String::new();
        for line in lines() {
            for (column, (cell, width)) in line.iter().zip(&widths).enumerate() {
                text.push_str("  ");
                text.push_str(&match column {
                    0 => format!("{cell:<width$}"),
                    _ => format!("{cell:>width$}"),
                });
            }
            text.truncate(text.trim_end().len());
            text.push('\n');
        }
        text
    }

    /// For a README.
    pub(crate) fn markdown(&self) -> String {
        let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
        let rule = vec!["---".to_owned(); self.head.len()];
        let lines: String = self.lines.iter().map(|cells| line(cells)).collect();
        format!("{}{}{lines}", line(&self.head), line(&rule))
    }

    /// For the report.
    pub(crate) fn html(&self) -> String {
        let row = |tag: &str, cells: &[String]| {
            let cells: String =
                cells.iter().map(|cell| format!("<{tag}>{}</{tag}>", escape(cell))).collect();
            format!("<tr>{cells}</tr>\n")
        };
        let lines: String = self.lines.iter().map(|cells| row("td", cells)).collect();
        format!(
            "<div class=\"wide\"><table>\n<thead>{}</thead>\n<tbody>{lines}</tbody>\n</table></div>\n",
            row("th", &self.head)
        )
    }
}

/// Text that cannot be taken for markup.
pub(crate) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grid() -> Grid {
        let mut grid = Grid::new(["", "ms", "none"]);
        grid.line(vec!["a<b".to_owned(), "10".to_owned(), "–".to_owned()]);
        grid.line(vec!["c".to_owned(), "7".to_owned(), String::new()]);
        grid
    }

    #[test]
    fn columns_are_aligned() {
        assert_eq!(grid().without_empty_columns().text(), "       ms\n  a<b  10\n  c     7\n");
    }

    #[test]
    fn every_form_holds_every_cell() {
        let grid = grid();
        assert_eq!(grid.markdown().lines().count(), 4);
        let html = grid.html();
        assert!(html.contains("<td>a&lt;b</td><td>10</td>") && !html.contains("a<b"), "{html}");
    }
}

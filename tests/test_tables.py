"""The formats of a table, each read back."""

import csv
import io
import re
from html.parser import HTMLParser

import polars as pl
import pytest
from markdown_it import MarkdownIt
from rich.console import Console

from icis import layout
from icis.artifacts import write_table
from icis.results import ResultTable, build_table
from icis.stages import tabulate
from icis.tables import FORMATS, to_csv, to_html, to_latex, to_markdown, to_terminal
from tests.example_results import example_metrics, example_plan

NASTY = r"A_b & 50% of $x$ #1 {y} ~ ^ \z <i> | `c` a→w [d] *e*"
SVG = '<?xml version="1.0"?>\n<!DOCTYPE svg>\n<svg xmlns="http://www.w3.org/2000/svg"><g/></svg>\n'
FOUR = ("T1", "U", "S", "H")
VOID = {"meta", "br", "link", "img"}


def example(names=("one", NASTY), *, missing=(), **table) -> ResultTable:
    plan = example_plan(names, **{"datasets": ["CUB", "SUN"], "seeds": 3} | table)
    cells = [cell.id for cell in plan.cells.values()]
    gone = [cells[position] for position in missing]
    metrics = example_metrics(plan).filter(~pl.col("cell").is_in(gone))
    return build_table(metrics, plan, "main")


class Page(HTMLParser):
    """Collects the rows of a page's table, checks that tags are closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open, self.tags, self.rows, self.attributes, self.text = [], [], [], [], []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, *each) for each in attrs]
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)
        if self.open and self.open[-1] in ("td", "th"):
            self.rows[-1][-1] += data


def shown(cell, digits=1):
    return "" if cell is None else f"{cell.mean:.{digits}f} ± {cell.std:.{digits}f}"


def expected(table):
    """Return what the rows of methods should read, in every format but CSV."""
    return [[row.display, *(shown(row.cells[c]) for c in table.columns)] for row in table.methods]


def test_csv_keeps_full_precision():
    table = example(missing=[1])
    read = pl.read_csv(io.StringIO(to_csv(table)))
    assert read["row"].to_list() == [row.display for row in table.rows]
    for g, metric in table.columns:
        for r, row in enumerate(table.rows):
            cell = row.cells[g, metric]
            name = f"{table.groups[g].label} {metric}"
            assert read[f"{name} mean"][r] == (cell.mean if cell else None)
            assert read[f"{name} std"][r] == (cell.std if cell else None)


def test_missing_cells_are_empty():
    table = example(missing=[1])
    nasty = next(line for line in csv.reader(io.StringIO(to_csv(table))) if line[0] == NASTY)
    assert nasty[1:9] == [""] * 8
    assert "" not in nasty[9:]

    assert markdown_page(table).rows[-1] == expected(table)[-1]
    assert latex_rows(to_latex(table))[-1][1:] == expected(table)[-1][1:]
    assert Page(to_html(table)).rows[-1] == expected(table)[-1]
    assert expected(table)[-1][1:5] == [""] * 4


def markdown_page(table):
    return Page(MarkdownIt("commonmark").enable("table").render(to_markdown(table)))


def test_markdown_has_a_cell_for_every_column():
    table = example()
    page = markdown_page(table)
    heads, chance, *methods = page.rows
    assert heads == ["Method", *(f"{d} {m}" for d in ("CUB", "SUN") for m in FOUR)]
    assert chance[:3] == ["Chance", "2.0", "0.5"]
    assert methods == expected(table)
    text = "".join(page.text)
    assert text.startswith("Main results\n")
    assert all(note in text for note in table.notes)
    assert "strong" not in page.tags


def test_markdown_stresses_the_caution():
    page = markdown_page(example(heads=["leak"]))
    assert page.tags.count("strong") == 1
    assert any(text.startswith("Selected on test images") for text in page.text)


def latex_rows(text):
    body = text.split(r"\midrule")[-1].split(r"\bottomrule")[0].strip()
    lines = [line.removesuffix(r" \\") for line in body.splitlines()]
    cells = [re.split(r"(?<!\\)&", line) for line in lines]
    return [[cell.strip().replace(r"$\pm$", "±") for cell in line] for line in cells]


def test_latex_escapes_and_aligns():
    table = example(title="50% & more_of #1")
    text = to_latex(table)
    assert r"\caption{50\% \& more\_of \#1}" in text
    assert latex_rows(text)[1][0] == (
        r"A\_b \& 50\% of \$x\$ \#1 \{y\} \textasciitilde{} \textasciicircum{} "
        r"\textbackslash{}z \textless{}i\textgreater{} \textbar{} `c` a$\to$w {[}d] {*}e{*}"
    )
    assert [row[1:] for row in latex_rows(text)] == [row[1:] for row in expected(table)]
    assert r"\begin{tabular}{lrrrrrrrr}" in text
    assert r" & \multicolumn{4}{c}{CUB} & \multicolumn{4}{c}{SUN} \\" in text
    assert r"\cmidrule(lr){2-5} \cmidrule(lr){6-9}" in text
    assert text.count("{") == text.count("}")
    assert text.count(r"\begin{") == text.count(r"\end{")
    assert all(len(row) == 9 for row in latex_rows(text))


@pytest.mark.parametrize(("metrics", "scaled"), [(["T1", "U", "S", "H"], True), (["T1"], False)])
def test_latex_scales_wide_tables_only(metrics, scaled):
    text = to_latex(example(metrics=metrics))
    assert (r"\resizebox{\textwidth}" in text) == scaled
    assert (r"\begin{table*}" in text) == scaled


def test_html_is_whole_and_needs_no_network():
    table = example(title="<script>alert(1)</script>")
    page = Page(to_html(table, SVG))
    heads, metrics, chance, *methods = page.rows
    assert heads == ["", "CUB", "SUN"]
    assert page.attributes.count(("th", "colspan", "4")) == 2
    assert metrics == ["Method", *FOUR, *FOUR]
    assert chance == ["Chance", "2.0", "0.5", "0.5", "0.5", "2.0", "0.5", "0.5", "0.5"]
    assert methods == expected(table)
    assert "".join(page.text).count("alert(1)") == 2  # as text, in title and heading
    assert "<script" not in to_html(table)
    assert all(note in "".join(page.text) for note in table.notes)


def test_html_has_no_resource_elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    plan = example_plan(["one", NASTY], heads=["leak"])
    write_table(layout.metrics("example"), example_metrics(plan), {})
    tabulate.run(plan)

    text = layout.table("example", "main", "html").read_text(encoding="utf-8")
    page = Page(text)
    links = [each for each in page.attributes if "//" in (each[2] or "") or each[1] == "src"]
    assert {name for _, name, _ in links} == {"xmlns", "xmlns:xlink"}
    assert text.count("http") == len(links)
    assert all(v.startswith("#") for _, name, v in page.attributes if name.endswith("href"))
    assert "@import" not in text
    assert not re.search(r"url\((?!#)", text)
    assert ("li", "class", "caution") in page.attributes
    assert "<?xml" not in text
    assert "DOCTYPE svg" not in text

    folder = layout.results("example")
    names = {str(path.relative_to(folder)) for path in folder.rglob("*.*")}
    assert names == {
        "metrics.parquet", *(f"tables/main.{s}" for s in FORMATS),
        *(f"figures/main.{s}" for s in ("svg", "pdf", "png")),
    }  # fmt: skip
    first = {name: (folder / name).read_bytes() for name in names}
    tabulate.run(plan)
    assert {name: (folder / name).read_bytes() for name in names} == first


def test_every_metric_has_its_decimals():
    table = example(["one"], datasets=["CUB"], metrics=["T1", "entropy", "epochs", "seen_accuracy"])
    cells = table.methods[0].cells
    wanted = [
        shown(cells[0, metric], digits)
        for metric, digits in (("T1", 1), ("entropy", 2), ("epochs", 0), ("seen_accuracy", 1))
    ]
    assert Page(to_html(table)).rows[-1] == ["one", *wanted]
    assert Page(to_html(table)).rows[1] == ["Method", "T1", "entropy", "epochs", "seen head"]


def test_one_seed_shows_no_deviation():
    table = example(["one"], datasets=["CUB"], seeds=1)
    cells = Page(to_html(table)).rows[-1][1:]
    assert cells == [f"{table.methods[0].cells[0, metric].mean:.1f}" for metric in table.metrics]


@pytest.mark.parametrize("width", [50, 80, 200])
def test_terminal_shows_every_number_whatever_the_width(width):
    table = example(["one", "[bold]two[/bold]"], metrics=["T1", "U", "S", "H", "entropy", "epochs"])
    console = Console(width=width, file=io.StringIO())
    console.print(to_terminal(table))
    text = console.file.getvalue()
    assert all(len(line) <= width for line in text.splitlines())
    numbers = re.findall(r"\d+\.\d", text)
    for row in table.methods:
        for g, metric in table.columns:
            if metric in FOUR:
                assert f"{row.cells[g, metric].mean:.1f}" in numbers
    if width == 200:
        assert "[bold]two[/bold]" in text
        assert f" {shown(table.methods[1].cells[1, 'H'])} " in text

"""The formats of a table, each read back."""

import csv
import io
import re
from html.parser import HTMLParser

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from rich.console import Console

from icis.figures import CLASSES, CURVES, draw, save
from icis.results import ResultTable, build_table
from icis.shown import number, spread
from icis.tables import to_csv, to_html, to_latex, to_markdown, to_terminal
from tests.example_results import cell_rows, example_metrics, example_plan, fail, frame

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
    """Collects the rows of a page's first table and of the others, checks that tags are closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open, self.tags, self.tables, self.attributes, self.text = [], [], [], [], []
        self.feed(text)
        self.close()
        assert not self.open
        self.rows = self.tables[0]

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, *each) for each in attrs]
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        if tag == "tr":
            self.tables[-1].append([])
        if tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)
        if {"td", "th"} & set(self.open):
            self.tables[-1][-1][-1] += data


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
    page = Page(to_html(table, [SVG]))
    heads, metrics, chance, *methods = page.rows
    assert heads == ["", "CUB", "SUN"]
    assert page.attributes.count(("th", "colspan", "4")) == 2
    assert metrics == ["Method", *FOUR, *FOUR]
    assert chance == ["Chance", "2.0", "0.5", "0.5", "0.5", "2.0", "0.5", "0.5", "0.5"]
    assert methods == expected(table)
    assert "".join(page.text).count("alert(1)") == 2  # as text, in title and heading
    assert "<script" not in to_html(table)
    assert all(note in "".join(page.text) for note in table.notes)


def test_html_has_no_resource_elsewhere(tmp_path):
    table = example(heads=["leak"], datasets=["CUB"], published="table1")
    svgs = []
    for kind in ("bars", "ladder"):
        path = tmp_path / f"{kind}.svg"
        save(draw(kind, table, pl.DataFrame(schema=CURVES), pl.DataFrame(schema=CLASSES)), path)
        svgs.append(path.read_text(encoding="utf-8"))
    text = to_html(table, svgs)
    page = Page(text)
    assert page.tags.count("figure") == page.tags.count("svg") == 2
    links = [each for each in page.attributes if "//" in (each[2] or "") or each[1] == "src"]
    assert {name for _, name, _ in links} == {"xmlns", "xmlns:xlink"}
    assert text.count("http") == len(links)
    assert all(v.startswith("#") for _, name, v in page.attributes if name.endswith("href"))
    assert "@import" not in text
    assert not re.search(r"url\((?!#)", text)
    assert ("li", "class", "caution") in page.attributes
    assert "<?xml" not in text
    assert "DOCTYPE svg" not in text


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


NEW = {
    "AUSUC": (31.26, "31.3"), "U_cal": (40.0, "40.0"), "S_cal": (50.06, "50.1"),
    "H_cal": (0, "0.0"),
    "offset": (-1.236, "−1.24"), "bias_gap": (-3.21, "−3.2"), "to_seen": (77.77, "77.8"),
    "norm_ratio": (0.876, "0.88"), "train_loss": (0.12345, "0.1235"),
    "held_out_loss": (1.5, "1.5000"), "held_out_cosine": (-0.0001, "0.000"),
    "held_out_w2a": (0.9996, "1.000"),
}  # fmt: skip


def test_diagnostics_have_headings_decimals_and_meanings():
    plan = example_plan(["one"], metrics=list(NEW), seeds=1)
    cell = next(iter(plan.cells.values()))
    values = {metric: float(value) for metric, (value, _) in NEW.items()}
    table = build_table(frame(cell_rows(cell, 0, values)), plan, "main")
    page = Page(to_html(table))
    assert page.rows[1] == [
        "Method", "AUSUC", "U cal.", "S cal.", "H cal.", "offset", "S − U", "to seen",
        "norm ratio", "train loss", "held-out loss", "held-out cosine", "held-out w→a",
    ]  # fmt: skip
    assert page.rows[-1] == ["one", *(text for _, text in NEW.values())]
    (meanings,) = [note for note in table.notes if note.startswith("AUSUC: ")]
    assert all(f"; {head}: " in meanings for head in page.rows[1][2:])


def failing():
    plan = example_plan(["one", "two"], datasets=["CUB", "SUN"], metrics=["T1", "H"])
    cell = list(plan.cells.values())[1]
    problems = dict.fromkeys(range(3), "out of memory (log: logs/a_b.log)")
    return build_table(fail(example_metrics(plan), cell, problems), plan, "main")


def test_failed_cells_say_so_in_every_format():
    table = failing()
    wanted = ["two", "failed", "failed", *expected(table)[1][3:]]
    assert markdown_page(table).rows[-1] == wanted
    assert latex_rows(to_latex(table))[-1] == wanted
    assert Page(to_html(table)).rows[-1] == wanted
    read = list(csv.DictReader(io.StringIO(to_csv(table))))
    assert read[2]["CUB T1 mean"] == read[2]["CUB H mean"] == "failed"
    assert read[2]["CUB T1 std"] == ""
    assert float(read[1]["CUB T1 mean"]) == table.methods[0].cells[0, "T1"].mean
    assert float(read[2]["SUN T1 mean"]) == table.methods[1].cells[1, "T1"].mean
    console = Console(width=120, file=io.StringIO())
    console.print(to_terminal(table))
    assert re.search(r"two +failed +failed", console.file.getvalue())
    note = "Failed, “two” on CUB: out of memory (log: logs/a_b.log)"
    for page in (markdown_page(table), Page(to_html(table))):
        assert note in "".join(page.text)


def with_published():
    names = {"conse": "ConSE", "mine": "Mine", "icis": "ICIS"}
    axes = {"datasets": ["CUB", "dogs"], "published": "table1", "metrics": ["T1", "H"]}
    plan = example_plan(names, **axes)
    return build_table(example_metrics(plan), plan, "main")


def test_published_numbers_stand_below_their_method():
    table = with_published()
    heads = ["ConSE", "published", "difference", "Mine", "ICIS", "published", "difference"]
    names = ("COSTA", "Sub.Reg.", "wDAE", "VGSE, WAvg or SMO", "LLM + CLIP text, AAAI-26")
    others = [f"{name} (published)" for name in names]
    pages = [markdown_page(table).rows[2:], Page(to_html(table)).rows[3:]]
    assert pages[0] == pages[1]
    assert [row[0] for row in pages[0]] == [*heads, *others]
    icis = table.methods[2].cells
    assert pages[0][5] == ["published", "60.6", "56.5", "", ""]
    signed = [f"{icis[0, m].mean - published:+.1f}".replace("-", "−")
              for m, published in (("T1", 60.6), ("H", 56.5))]  # fmt: skip
    assert pages[0][6] == ["difference", *signed, "", ""]
    assert pages[0][-2] == ["VGSE, WAvg or SMO (published)", "45.1", "44.8", "", ""]
    text = to_latex(table)
    assert r"\quad\textit{published} & 60.6 & 56.5 &  &  \\" in text
    assert [row[0] for row in latex_rows(text)] == others
    assert text.count(r"\midrule") == 3


def test_csv_has_published_numbers_in_columns():
    table = with_published()
    read = pl.read_csv(io.StringIO(to_csv(table)))
    icis = read.row(3, named=True)
    assert (icis["row"], icis["CUB T1 published"], icis["CUB T1 published std"]) == (
        "ICIS", 60.6, None,
    )  # fmt: skip
    assert icis["CUB T1 difference"] == icis["CUB T1 mean"] - 60.6
    assert icis["dogs T1 published"] is None
    llm = read.row(-1, named=True)
    assert (llm["CUB H mean"], llm["CUB H published"], llm["CUB H difference"]) == (
        None, 61.3, None,
    )  # fmt: skip
    assert "published" not in to_csv(failing())


def test_terminal_leaves_out_lines_without_numbers():
    console = Console(width=150, file=io.StringIO())
    console.print(to_terminal(with_published()))
    cub, dogs = console.file.getvalue().split("\n dogs")[0], console.file.getvalue()
    assert cub.count("  published ") == dogs.count("  published ") == 2


@given(st.floats(-1e6, 1e6), st.integers(0, 3))
def test_numbers_read_back(value, digits):
    text = number(value, digits)
    assert float(text.replace("−", "-")) == float(f"{value:.{digits}f}")
    assert "-" not in text
    signed = number(value, digits, signed=True)
    assert float(signed.replace("−", "-")) == float(text.replace("−", "-"))
    zero = float(f"{value:.{digits}f}") == 0
    assert (signed[0] in "+−") != zero
    assert not (zero and text.startswith("−"))


@given(st.floats(0, 100), st.floats(0, 100), st.integers(0, 3))
def test_mean_and_deviation_read_back(mean, std, digits):
    found = [float(part) for part in spread(mean, std, digits).split(" ± ")]
    assert found == [float(f"{mean:.{digits}f}"), float(f"{std:.{digits}f}")]

"""The report is one page that stands alone, says what is missing, and escapes whatever it shows."""

import base64
import html
import json
import re
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import fields, replace
from html.parser import HTMLParser
from urllib.parse import unquote, unquote_to_bytes, urlsplit

import pandas as pd
import pytest

from zo_runner.reporting.figures import line_charts, style
from zo_runner.reporting.figures.line_charts import ChartPoint
from zo_runner.reporting.html_report import Page, Run, render

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "</style></title></svg><iframe>",
    "{{ 7 * 7 }}{% raw %}",
    "&lt;b&gt; & <b>",
    "-->\u2028<!--",
)
SECTIONS = ["question", "protocol", "tables", "figures", "missing", "runs", "versions"]


class Reader(HTMLParser):
    """Tags, attributes and texts of a page; raises where tags are not balanced."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open, self.tags, self.texts, self.cells = [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.handle_startendtag(tag, attrs)
        if tag not in {"meta", "img"}:
            self.open.append(tag)
        if tag in ("td", "th"):
            self.cells.append("")

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        assert len(dict(attrs)) == len(attrs)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append((self.open[-1] if self.open else "", data))
        if {"td", "th"} & set(self.open):
            self.cells[-1] += data

    def values(self, name):
        return [attrs[name] for _, attrs in self.tags if name in attrs]

    def said(self, tag):
        return [text for inside, text in self.texts if inside == tag]

    @property
    def text(self):
        """All that is said, with single spaces."""
        return " ".join("".join(text for inside, text in self.texts if inside not in ("style", "title")).split())

    @property
    def sections(self):
        return [attrs["id"] for tag, attrs in self.tags if tag == "h2"]

    @property
    def links(self):
        """Addresses outside the page."""
        return [link for link in self.values("href") if not link.startswith("#")]


@pytest.fixture(scope="module")
def drawing(tmp_path_factory):
    """An SVG of matplotlib, with a legend and a note."""
    folder = tmp_path_factory.mktemp("drawing")
    points = [ChartPoint(rank, 80.0, 75.0, 85.0, 3) for rank in (1, 4, 16)]
    with style.settings():
        series = {"ar1zo": points, "mezo <&>": points}
        figure = line_charts.rank_curve(series, ylabel="test (%)", title="t, m", note="Missing: mezo (1 of 3).")
        style.save(figure, folder, "figure")
    return (folder / "figure.svg").read_text()


def empty(**changes):
    values = {field.name: () for field in fields(Page)} | {"title": "rank_grid", "question": "Which?"}
    return Page(**(values | {"protocol": {}, "versions": {}} | changes))


def run(**changes):
    values = {"label": "ar1zo rank=4", "seed": 0, "stage": 2, "status": "done", "summary": "dev 90 %"}
    return Run(**({**values, "link": "runs/s0-1"} | changes))


@pytest.fixture
def page(drawing):
    """A page with everything on it."""
    wide = {f"column {i}": [f"{i}.{row} ± 1.0 [0.1, 0.9]" for row in range(3)] for i in range(14)}
    table = pd.DataFrame({"method": ["ar1zo", "lora_zo", "mezo"], **wide})
    return empty(
        protocol={"Budget": "2000 queries", "Seeds": "0, 1, 2"},
        tables=[("t, m: accuracy", table), ("t, m: cost", table[["method", "column 0"]])],
        figures=[("Accuracy against rank", drawing), ("The same again", drawing)],
        versions={"zo-run": "0.1.0", "source": "a" * 40},
        runs=[run(), run(seed=1, status="diverged"), run(seed=2, status="missing", summary="", link="")],
        missing=["mezo: 1 of 3 runs"],
        refusals=["u, m: No table: its rows differ in budget.queries"],
        notes=["Diverged runs are not averaged."],
    )


def test_sections_come_in_order_and_every_reference_leads_somewhere(page):
    text = render(page)
    assert text == render(page)
    read = Reader(text)
    assert read.sections == SECTIONS
    ids = read.values("id")
    assert len(ids) == len(set(ids))
    referred = [name for key in ("aria-labelledby", "aria-describedby") for name in read.values(key)]
    referred += [link[1:] for link in read.values("href") if link.startswith("#")]
    assert {*SECTIONS, "refused", "table-1", "caption-2"} <= {*referred, *ids}
    assert set(referred) <= set(ids)
    assert read.tags[0] == ("html", {"lang": "en"})
    assert read.said("title")[0] == "rank_grid"


def test_the_page_stands_alone(page):
    text = render(page)
    read = Reader(text)
    assert not {tag for tag, _ in read.tags} & {*("script", "link", "iframe", "object", "embed", "base", "form", "svg")}
    assert [key for _, attrs in read.tags for key in attrs if key.startswith("on") or key == "srcset"] == []
    assert {source.split(",")[0] for source in read.values("src")} == {"data:image/svg+xml;base64"}
    assert "://" not in text
    assert "@import" not in text
    (policy,) = [a["content"] for tag, a in read.tags if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy.startswith("default-src 'none';")
    assert "script-src" not in policy
    assert read.links == ["runs/s0-1", "runs/s0-1"]


def test_what_is_given_is_on_the_page(page):
    read = Reader(render(page))
    for text in ("Which?", "2000 queries", "a" * 40, "mezo: 1 of 3 runs", "Diverged runs are not averaged."):
        assert text in read.text
    assert "3 runs: 1 done, 1 diverged, 1 missing." in read.text
    assert "Incomplete:" in read.text
    assert "No table: its rows differ in budget.queries" in read.text
    for i, row in enumerate(page.tables[0][1].itertuples(index=False, name=None)):
        start = read.cells.index(row[0])
        assert read.cells[start : start + 15] == list(row), i
    assert [text.strip() for text in read.said("a") if "s0-" in text] == ["s0-1", "s0-1"]


def test_an_empty_page_says_that_there_is_nothing_and_a_hole_or_a_refusal_is_not_called_nothing():
    read = Reader(render(empty()))
    assert "Incomplete" not in read.text
    nothing = ("There is no table.", "There is no figure.", "There is no run.", "None is recorded.")
    for text in ("Missing runs Nothing.", "Nothing is missing.", "0 runs.", *nothing):
        assert text in read.text
    assert read.sections == SECTIONS
    for changes in ({"missing": ["x"]}, {"refusals": ["x"]}):
        said = Reader(render(empty(**changes))).text
        assert "Nothing" not in said
        assert "Incomplete: see missing runs." in said


def everywhere(text, drawing):
    """A page that says `text` wherever it can be said."""
    words = dict.fromkeys(("title", "question"), text) | {key: [text] for key in ("missing", "refusals", "notes")}
    words |= {key: {text: text} for key in ("protocol", "versions")}
    runs = [run(label=text, status=text, summary=text, link=f"runs/{text}/s0-1")]
    return Page(**words, tables=[(text, pd.DataFrame({text: [text, "a"]}))], figures=[(text, drawing)], runs=runs)


@pytest.mark.parametrize("text", HOSTILE)
def test_whatever_people_wrote_stays_text(text, drawing):
    read, calm = (Reader(render(everywhere(said, drawing))) for said in (text, "calm"))
    assert [(tag, list(attrs)) for tag, attrs in read.tags] == [(tag, list(attrs)) for tag, attrs in calm.tags]
    for tag, times in (("h1", 1), ("p", 2), ("dt", 2), ("dd", 2), ("li", 3), ("figcaption", 2), ("th", 3), ("td", 2)):
        assert sum(text in said for said in read.said(tag)) == times, tag
    assert read.said("title") == [text]
    assert [alt.startswith(f"{text}. Written in the figure: ") for alt in read.values("alt")] == [True]
    assert [unquote(link) for link in read.links] == [f"runs/{text}/s0-1"]


def test_characters_that_a_page_cannot_hold_are_replaced_and_a_key_in_an_assignment_goes():
    kept = "package wandb 0.31 and a hash " + "b" * 40
    text = render(empty(notes=["a\x00b\x1b[31mc\ud800d\ttab\nline", "WANDB_API_KEY=0123456789abcdef is set", kept]))
    assert "a\ufffdb\ufffd[31mc?d\ttab\nline" in text
    text.encode("utf-8")
    assert "0123456789abcdef" not in text
    assert "WANDB_API_KEY=[removed] is set" in text
    assert kept in text


LINKS = ["a b/c", "a'b\"c", "a&b<c>", "a#b?c=d", "50%", "é/日", "../../runs/s0-1", "javascript:alert(1)", "http://x/y"]
LINKS.append(b"runs/\xff\xfe".decode("utf-8", "surrogateescape"))  # a path that is no text


@pytest.mark.parametrize("link", LINKS, ids=ascii)
def test_links_are_relative_and_encoded(link):
    (address,) = Reader(render(empty(runs=[run(link=link)]))).links
    assert re.fullmatch(r"[A-Za-z0-9._~/%-]+", address)
    assert unquote_to_bytes(address) == link.encode("utf-8", "surrogateescape")
    parts = urlsplit(address)
    assert (parts.scheme, parts.netloc, parts.query, parts.fragment) == ("", "", "", "")
    with pytest.raises(ValueError, match="Must be a relative path"):
        render(empty(runs=[run(link=f"/{link}")]))


def test_figures_are_images_of_the_drawings_with_a_text_alternative(page, drawing):
    read = Reader(render(page))
    assert [base64.b64decode(source.split(",")[1]).decode() for source in read.values("src")] == [drawing] * 2
    for alt, caption in zip(read.values("alt"), ("Accuracy against rank", "The same again"), strict=True):
        assert alt.startswith(f"{caption}. Written in the figure: ")
        for part in ("ar1zo", "mezo <&>", "rank r", "Missing: mezo (1 of 3)."):
            assert part in alt
    assert Reader(render(empty(figures=[("c", "<svg><!-- 4 --></svg>")]))).values("alt") == ["c"]  # it has no words


def test_tables_hold_any_frame():
    frame = pd.DataFrame([["a", "1.5 ± 0.1", None, "3"], ["b", "-", float("nan"), "diverged"], ["c", "-∞", pd.NA, ""]])
    frame.columns = ["name", "x", "x", "n"]
    nothing = pd.DataFrame({"a": [], "b": []})
    read = Reader(render(empty(tables=[("one", frame), ("two", nothing), ("three", pd.DataFrame())])))
    assert read.cells[4:16] == ["a", "1.5 ± 0.1", "–", "3", "b", "-", "–", "diverged", "c", "-∞", "–", "–"]
    heads = [attrs for tag, attrs in read.tags if tag == "th"]
    columns = [attrs.get("class") for attrs in heads if attrs["scope"] == "col"]
    assert columns == [None, "number", "number", None, None, None]
    assert sum(attrs["scope"] == "row" for attrs in heads) == 3


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("html_report", {"torch", "matplotlib"}),
        ("figures.probe_figures", {"torch", "matplotlib"}),
        ("figures.sweep_figures", {"torch", "matplotlib", "scipy"}),
        ("tables.tables", {"torch", "matplotlib", "transformers", "peft", "scipy.stats"}),
    ],
)
def test_reports_are_imported_without_what_trains_and_draws(module, heavy):
    command = f"import sys, zo_runner.reporting.{module}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, check=True)
    assert f"zo_runner.reporting.{module}" in done.stdout.split()
    assert not heavy & set(done.stdout.split())


@pytest.fixture
def browse(tmp_path):
    """Open a page in a headless Chromium without network and return what it prints."""
    if BROWSER is None:
        pytest.skip("no chromium, chromium-browser or google-chrome on the path")

    def browse(text, *options):
        file = tmp_path / "page with spaces.html"
        file.write_text(text, encoding="utf-8")
        command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]
        command += ["--disable-background-networking", "--host-resolver-rules=MAP * ~NOTFOUND", "--hide-scrollbars"]
        command += [f"--user-data-dir={tmp_path / 'profile'}", *options, file.as_uri()]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout

    return browse


def test_chromium_shows_the_tables_and_figures(page, browse):
    hostile = replace(page, notes=list(HOSTILE), title="".join(HOSTILE))
    read = Reader(browse(render(hostile), "--dump-dom"))
    tags = Counter(tag for tag, _ in read.tags)
    assert [tags[tag] for tag in ("table", "img", "script", "iframe", "tr")] == [3, 2, 0, 0, 4 + 4 + 4]
    assert "0.0 ± 1.0 [0.1, 0.9]" in read.cells
    assert read.sections == SECTIONS
    assert [said for said in read.said("li") if said in HOSTILE] == list(HOSTILE)


MEASURE = """
<script>
addEventListener("load", () => {
  const found = [...document.querySelectorAll("iframe")].map(frame => {
    const page = frame.contentDocument, root = page.documentElement;
    const boxes = [...page.querySelectorAll(".scroll, .sheet")];
    return {
      width: root.clientWidth,
      content: Math.max(root.scrollWidth, page.body.scrollWidth),
      boxes: boxes.map(box => box.scrollWidth > box.clientWidth),
      drawings: [...page.images].map(image => image.getBoundingClientRect()).map(r => r.width / r.height),
    };
  });
  const out = document.createElement("output");
  out.textContent = JSON.stringify(found);
  document.body.append(out);
});
</script>
"""


def test_chromium_never_scrolls_the_page_sideways(page, browse, drawing):
    long = replace(
        page,
        title="long_name_" * 30,
        protocol={"key." * 40: "value/" * 80},
        missing=["no_space" * 60],
        runs=[run(label="l" * 200, summary="s" * 300, status="t" * 90, link="p" * 200)],
        tables=[*page.tables, ("c" * 300, pd.DataFrame({"h" * 200: ["x" * 300]}))],
    )
    # A page whose wide tables do not scroll in their boxes must be found out, or the measurement says nothing.
    broken = render(page).replace("</style>", ".scroll { overflow: visible !important; }</style>")
    wanted = [(render(p), width) for p in (page, long) for width in (390, 1280)] + [(broken, 390)]
    frames = [f'<iframe style="width:{w}px; border:0" srcdoc="{html.escape(text)}"></iframe>' for text, w in wanted]
    dom = browse(f"<!doctype html><body>{MEASURE}{''.join(frames)}", "--dump-dom", "--virtual-time-budget=5000")
    *found, control = json.loads(html.unescape(re.search(r"<output>(.*)</output>", dom).group(1)))
    assert [one["width"] for one in found] == [one["content"] for one in found] == [390, 1280, 390, 1280]
    assert control["content"] > 1000
    # The wide table scrolls in its box, the narrow does not.
    assert found[0]["boxes"] == [True, False, True, True, True]
    assert found[1]["boxes"] == [True, False, False, False, False]
    width, height = map(float, re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', drawing).groups())
    for one in found:
        assert one["drawings"] == pytest.approx([width / height] * 2, rel=1e-3)


def test_chromium_draws_it_light_and_dark(page, browse, tmp_path):
    from matplotlib.image import imread

    shades = {}
    for name, scheme in (("dark", 0), ("light", 1)):
        options = (f"--blink-settings=preferredColorScheme={scheme}", "--window-size=1280,2600")
        browse(render(page), f"--screenshot={tmp_path / name}.png", *options)
        image = imread(tmp_path / f"{name}.png")[..., :3]
        assert image.shape == (2600, 1280, 3)
        assert image.std() > 0.02  # something is drawn on the ground
        shades[name] = image[5, 5].mean(), image.mean()
    assert shades["light"][0] > 0.9
    assert shades["dark"][0] < 0.2
    assert shades["dark"][1] < 0.5 < shades["light"][1]

"""Links and paths in the Markdown files lead to something that exists."""

import re
from pathlib import Path

import pytest

HOME = Path(__file__).parent.parent
PAGES = [*HOME.glob("*.md"), *HOME.glob("docs/*.md"), *HOME.glob("docs/results/*/*.md")]
LINK = re.compile(r"\]\((?!https?:)([^)#]*)(?:#([^)]*))?\)")
PATH = re.compile(r"`((?:benchmarks|conf|docs|scripts|sweeps|tests|zo_runner)/[\w./-]*)`")


def anchors(page: Path) -> set[str]:
    lines = page.read_text(encoding="utf-8").splitlines()
    return {re.sub(r"[^\w -]", "", line.lstrip("# ").lower()).replace(" ", "-") for line in lines if line[:1] == "#"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(HOME)))
def test_links_and_paths_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    targets = [(page.parent / link if link else page, anchor) for link, anchor in LINK.findall(text)]
    paths = [] if page.name in ("CHANGELOG.md", "log.md") else PATH.findall(text)  # their files may be of another time
    assert not [str(to) for to, anchor in targets if not to.exists() or (anchor and anchor not in anchors(to))]
    assert not [path for path in paths if not (HOME / path).exists()]

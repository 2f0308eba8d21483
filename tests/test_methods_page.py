"""docs/methods.md says what the docstrings say."""

from pathlib import Path

from scripts.methods import MARK, nodes, rewritten

PAGE = Path(__file__).parents[1] / "docs" / "methods.md"


def test_the_page_is_what_the_docstrings_make_of_it():
    text = PAGE.read_text(encoding="utf-8")
    assert rewritten(text) == text, "run: python -m scripts.methods docs/methods.md"


def test_every_method_has_its_place_on_the_page():
    kept, _, written = PAGE.read_text(encoding="utf-8").partition(MARK)
    for name in nodes():
        assert f"- `method={name}`: " in written
    assert rewritten(f"above\n\n{MARK}\nold\n").startswith(f"above\n\n{MARK}\n\n")
    assert len(kept) > 1000

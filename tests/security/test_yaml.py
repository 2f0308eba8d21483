"""A YAML file of unknown origin is read as data: no objects, no interpolation."""

import pytest

from tests.cli.helpers import zo_run
from zo_runner.config import yaml_files
from zo_runner.errors import UserError

BAD = {
    "object": "a: !!python/object/apply:os.system ['touch PROOF']\n",
    "name": "a: !!python/name:os.system\n",
    "module": "a: !!python/module:antigravity\n",
    "tuple": "a: !!python/tuple [1]\n",
    "own tag": "a: !evil {b: 1}\n",
    "inside itself": "a: &a {b: *a}\n",
    "inside itself, a list": "a: &a [*a]\n",
    "deep": "a: " + "[" * 5000 + "]" * 5000,
    "huge integer": f"a: {'9' * 5000}\n",
    "long": "a: " + "x" * yaml_files.MOST_CHARACTERS,
    "list": "[1, 2]\n",
    "unfinished": "a: [1\n",
    "control": "a: \x07\n",
    "duplicate": "a: 1\na: 2\n",
}


@pytest.mark.parametrize("text", BAD.values(), ids=BAD.keys())
def test_what_is_not_plain_is_refused_in_one_line(text, tmp_path):
    file = tmp_path / "config.yaml"
    file.write_text(text.replace("PROOF", str(tmp_path / "proof")), encoding="utf-8")
    with pytest.raises(UserError, match=r"\AInvalid .*config\.yaml: .*\. Must be a YAML file of keys and values\.\Z"):
        yaml_files.read(file)
    assert not (tmp_path / "proof").exists()


@pytest.mark.parametrize("content", [b"a: \xff\n", None], ids=["not UTF-8", "missing"])
def test_what_cannot_be_read_is_refused_in_one_line(content, tmp_path):
    file = tmp_path / "config.yaml"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(UserError, match=r"\AInvalid .*config\.yaml: "):
        yaml_files.read(file)


def test_an_interpolation_stays_text_and_numbers_are_as_in_a_configuration(tmp_path, monkeypatch):
    monkeypatch.setenv("PLANTED", "value")
    file = tmp_path / "config.yaml"
    file.write_text("a: ${oc.env:PLANTED}\nlr: 1e-3\nb: &b [1, null]\nc: *b\n", encoding="utf-8")
    assert yaml_files.read(file) == {"a": "${oc.env:PLANTED}", "lr": 1e-3, "b": [1, None], "c": [1, None]}


def test_a_table_leaves_out_a_run_with_a_hostile_configuration_and_says_so(tmp_path):
    run = tmp_path / "runs" / "t" / "m" / "x" / "s0-0123456789"
    run.mkdir(parents=True)
    (run / "result.json").write_text("{}", encoding="utf-8")
    (run / "config.yaml").write_text(BAD["object"].replace("PROOF", str(tmp_path / "proof")), encoding="utf-8")
    ended = zo_run("job=table", f"runtime.root={tmp_path / 'runs'}")
    assert ended.code == 1
    first, last = ended.err.splitlines()
    assert first.startswith(f"zo-run: Invalid {run / 'config.yaml'}: ")
    assert last.startswith("zo-run: error: No table: ")
    assert not (tmp_path / "proof").exists()


@pytest.mark.parametrize("key", ["rank", "method.lr"])
def test_an_integer_of_thousands_of_digits_is_one_line(key, tmp_path):
    ended = zo_run(f"{key}={'9' * 5000}", "tracker=none", f"runtime.root={tmp_path / 'runs'}")
    assert ended.code == 1
    assert len(ended.err.splitlines()) == 1
    assert not (tmp_path / "runs").exists()

"""Keys and tokens stand in no file of a run and in no line of output."""

import io
import re
from contextlib import redirect_stderr, redirect_stdout

import pytest

from tests.cli.helpers import SMALL, configure, the_run, zo_run
from zo_runner.config import credentials, validation
from zo_runner.errors import UserError
from zo_runner.jobs.console import complain, say

# Made up, in the forms that real ones have.
WANDB = "0123456789abcdef0123456789abcdef01234567"
NEW_WANDB = "wandb_v1_" + "aB3" * 20
HUB = "hf_" + "aBcDeFgHiJkLmNoPqRsTuVwXyZaBcDeFgH"
OTHER = "correct-horse-battery"
PLANTED = {"WANDB_API_KEY": WANDB, "HF_TOKEN": HUB, "MY_SERVICE_PASSWORD": OTHER}


@pytest.fixture
def planted(monkeypatch):
    for name, value in PLANTED.items():
        monkeypatch.setenv(name, value)


# Recognition


@pytest.mark.parametrize(
    "word",
    [
        *("+tracker.api_key=x1", "tracker.api_key=x1", "++wandb_api_key=x1", "hf_token=x1", "+a.token=x1", "token=x1"),
        *("+tracker.password=x1", "hydra.job.env_set.WANDB_API_KEY=x1", "+a.secret=x1", "+a.access_token=x1"),
        *(f"model.path={HUB}", f"tracker.project={NEW_WANDB}", f"task.template='{{text}} ghp_{'a' * 36}'"),
        *("model.path=https://user:pass@host/x", f"model.path=https://{HUB}@huggingface.co/x", f"a=sk-{'b' * 30}"),
        *(f"tracker.entity={WANDB}", f"x={OTHER}", f"prefix{OTHER}suffix"),
    ],
)
def test_a_word_with_a_credential_is_recognised(word, planted):
    assert credentials.typed(word)


@pytest.mark.parametrize(
    "word",
    [
        *("task.single_token=true", "budget.tokens=2e6", "task.max_new_tokens=3", "-m", "model.path=~/a@b", "seed=0"),
        *("model.path=facebook/opt-125m", "task.template='{text} password: {word}'", "model.path=file:///a/b@c"),
        *("task.revision=bcdcba79d07bc864c1c254ccfcedcce55bcc9a8c", "task.path=/data/hf_cache", "task.name=key"),
    ],
)
def test_other_words_are_not(word, planted):
    assert not credentials.typed(word)


@pytest.mark.parametrize(
    ("text", "left"),
    [
        (f"401 for url https://me:{OTHER}x@host/a", "401 for url https://[removed]@host/a"),
        ("Authorization: Bearer abc api_key='k'", "Authorization: [removed] api_key='[removed]'"),
        (f"HF_TOKEN={HUB} was refused", "HF_TOKEN=[removed] was refused"),
        (f"key {WANDB}!", "key [removed]!"),
        ("password: hunter22", "password: [removed]"),
        ("{'api_key': 'abc', 'b': 1}", "{'api_key': '[removed]', 'b': 1}"),
        ("Invalid task.single_token: True. Must be false.", "Invalid task.single_token: True. Must be false."),
        ("Invalid batch_size: 65. See https://example.org/a@b", "Invalid batch_size: 65. See https://example.org/a@b"),
    ],
)
def test_a_message_loses_its_credentials_and_nothing_else(text, left, planted):
    assert credentials.redacted(text) == left


def test_short_values_and_other_variables_are_no_credentials(monkeypatch):
    monkeypatch.setenv("FLAG_KEY", "yes")
    monkeypatch.setenv("PROJECT_NAME", "a-long-enough-name")
    assert credentials.redacted("yes, a-long-enough-name") == "yes, a-long-enough-name"


# Refusal


@pytest.mark.parametrize(
    ("mode", "word", "secret"),
    [
        ([], "+tracker.api_key=hunter22", "hunter22"),
        (["-m"], f"model.path=https://me:{OTHER}@host/model", OTHER),
        ([], f"tracker.project={HUB}", HUB),
        (["-m"], HUB, HUB),
    ],
)
def test_a_command_with_a_credential_is_one_line_without_it_and_leaves_nothing(mode, word, secret, tmp_path):
    ended = zo_run(*mode, "tracker=none", word, f"runtime.root={tmp_path / 'runs'}")
    assert (ended.code, ended.out) == (1, "")
    assert re.fullmatch(r"zo-run: error: Invalid .*: '\[removed\]'\. Must be .*\n", ended.err)
    assert secret not in ended.err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("key", ["tracker.project", "task.template"])
def test_a_configuration_with_a_credential_is_refused_without_it(key, planted):
    """A credential may stand in a file, and in no word of the command line."""
    for value in (OTHER, f"a {HUB}"):
        with pytest.raises(UserError, match=rf"\AInvalid {key}: '\[removed\]'\. ") as refused:
            validation.check(configure(f"{key}={value}"))
        assert value not in str(refused.value)


# A run


def _traces(folder, streams):
    """Files and streams that hold a planted credential, and its name."""
    texts = {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    texts |= {str(i): stream.encode() for i, stream in enumerate(streams)}
    assert len(texts) > 5
    return [(where, name) for where, text in texts.items() for name, value in PLANTED.items() if value.encode() in text]


@pytest.mark.slow
def test_no_file_and_no_line_of_a_run_with_wandb_holds_a_credential(tmp_path, planted):
    words = (*SMALL, "tracker=wandb", "tracker.mode=offline", f"runtime.root={tmp_path / 'runs'}")
    ended = zo_run(*words)
    assert ended.code == 0, ended.err
    assert list(the_run(tmp_path).glob("wandb/offline-run-*/*.wandb"))
    assert _traces(tmp_path, [ended.out, ended.err]) == []


@pytest.mark.parametrize("mode", [[], ["-m"]], ids=["run", "multirun"])
def test_no_file_and_no_line_of_a_run_that_fails_holds_a_credential(mode, tmp_path, planted, monkeypatch):
    """The traceback quotes a library's error, such as 401 Unauthorized for an address with a token in it."""

    def fail(*_):
        raise RuntimeError(f"401 for https://me:{OTHER}@host: api_key={WANDB}, token {HUB}\x1b[2J")

    monkeypatch.setattr("zo_runner.jobs.train._trainer", fail)
    ended = zo_run(*mode, *SMALL, f"runtime.root={tmp_path / 'runs'}")
    assert ended.code == 1
    assert "401 for https://[removed]@host" in (the_run(tmp_path) / "error.txt").read_text(encoding="utf-8")
    assert "401 for https://[removed]@host" in ended.err
    assert "\x1b" not in ended.err
    assert _traces(tmp_path, [ended.out, ended.err]) == []


def test_what_is_said_has_no_escape_sequences():
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        say("a\x1b[31m\r\x9b2Jb\tc\nd")
        complain("a\x1b]0;title\x07b")
    assert out.getvalue() == "a\ufffd[31m\ufffd\ufffd2Jb\tc\nd\n"
    assert err.getvalue() == "zo-run: a\\x1b]0;title\\x07b\n"

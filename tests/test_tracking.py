"""Weights & Biases beside our own files: a mirror that never stops a run and never tells a key."""

import json
import math
import socket
import struct
import threading
import warnings
from functools import reduce
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from unittest.mock import Mock

import pytest
import wandb
from wandb.errors import CommError, UsageError
from wandb.proto import wandb_internal_pb2

from tests.cli.helpers import SMALL, read_json, read_jsonl, the_run, zo_run
from zo_runner.errors import RunWarning
from zo_runner.records import tracking
from zo_runner.records.json_files import decode
from zo_runner.training.noise import Noise

KEY = "0123456789abcdef0123456789abcdef01234567"
OPTIONS = {"project": "p", "entity": None, "name": "n", "group": "g", "config": {"rank": 8}}


def records_of(file):
    """The records of an offline W&B file: a LevelDB log (7 bytes of header, then chunks in blocks of 32 KiB)."""
    data, position, parts = file.read_bytes(), 7, []
    while position + 7 <= len(data):
        left_in_block = 32768 - position % 32768
        if left_in_block < 7:
            position += left_in_block
            continue
        size, kind = struct.unpack_from("<HB", data, position + 4)
        parts.append(data[position + 7 : position + 7 + size])
        position += 7 + size
        if kind in (1, 4):  # a whole record, or the last part of one
            record = wandb_internal_pb2.Record()
            record.ParseFromString(b"".join(parts))
            parts = []
            yield record


def key_of(item):
    return item.key or "/".join(item.nested_key)


def history_of(run):
    """The rows of a run's offline W&B file. A histogram is a mapping, of which every entry is an item of its own."""
    (file,) = run.glob("wandb/offline-run-*/run-*.wandb")
    rows = []
    for record in records_of(file):
        if record.HasField("history"):
            rows.append({})
            for item in record.history.item:
                *path, name = item.nested_key or [item.key]
                node = reduce(lambda node, key: node.setdefault(key, {}), path, rows[-1])
                node[name] = json.loads(item.value_json)
    return rows


def tracked_run(root, *words, **env):
    """A run with the default tracker, offline, that says nothing on stderr."""
    wandb.teardown()
    small = [word for word in SMALL if word != "tracker=none"]
    ended = zo_run(*small, *words, f"runtime.root={root}", env={"WANDB_MODE": "offline", **env})
    assert ended.code == 0, ended.err
    assert ended.err == ""
    return the_run(root)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run while a key is configured."""
    # Noise that is added: of so few examples all re-evaluations may round alike.
    noise = ("noise=injected", "noise.std=1e-4")
    yield tracked_run(tmp_path_factory.mktemp("tracked"), *noise, WANDB_API_KEY=KEY)
    wandb.teardown()


# A whole run


def test_the_offline_file_mirrors_our_own_and_no_file_of_the_run_holds_the_key(run):
    (file,) = run.glob("wandb/offline-run-*/run-*.wandb")
    start = next(record.run for record in records_of(file) if record.HasField("run"))
    assert (start.project, start.run_group) == ("zo-run", "pocket_sentiment/pocket_opt")
    assert start.display_name == "ar1zo rank=8 seed=0"
    config = {key_of(item): item.value_json for item in start.config.update}
    assert config["rank"] == "8"
    assert '"name":"ar1zo"' in config["method"].replace(" ", "")

    history, events = history_of(run), read_jsonl(run / "metrics.jsonl")
    for event, row in zip(events, history, strict=True):
        numbers = {key: value for key, value in event.items() if not isinstance(value, list)}
        assert {key: row[key] for key in numbers} == pytest.approx(numbers)
        assert set(row) - {"_step", "_runtime", "_timestamp"} == set(event)
    assert {"zo/fd_snr", "train/loss"} <= {key for row in history for key in row}
    assert [path for path in run.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()] == []


def test_atoms_are_a_histogram_in_the_offline_file(run):
    rows = [row for row in history_of(run) if "zo/atoms/fd_snr_db" in row]
    events = [event for event in read_jsonl(run / "metrics.jsonl") if "zo/atoms/fd_snr_db" in event]
    assert [event["queries"] for event in events] == [20, 40]
    for event, row in zip(events, rows, strict=True):
        levels, histogram = event["zo/atoms/fd_snr_db"], row["zo/atoms/fd_snr_db"]
        finite = [level for level in levels if isinstance(level, float)]
        assert histogram["_type"] == "histogram"
        assert sum(histogram["values"]) == len(finite) > 0
        assert (histogram["bins"][0], histogram["bins"][-1]) == pytest.approx((min(finite), max(finite)))
        assert len(finite) + row["zo/atoms/infinite"] + row["zo/atoms/unvisited"] == len(levels) == 8


def test_a_run_in_exact_arithmetic_has_an_infinite_fd_snr_everywhere(tmp_path, monkeypatch):
    monkeypatch.setattr(Noise, "variant", lambda self, examples, step, repeat: (list(examples), 0))  # the same bits
    run = tracked_run(tmp_path, "rank=16", "budget.queries=24")
    raw = read_json(run / "result.json")["signal"]
    assert (raw["zo/noise"], raw["zo/fd_snr"], raw["zo/fd_snr_db"]) == (0.0, "inf", "inf")
    assert decode(raw)["zo/fd_snr"] == math.inf

    events, history = read_jsonl(run / "metrics.jsonl"), history_of(run)
    for event, row in zip(events, history, strict=True):
        if "train/loss" in event:
            assert (event["zo/fd_snr"], event["zo/fd_snr_db"]) == ("inf", "inf")
            assert (row["zo/fd_snr"], row["zo/fd_snr_db"]) == (math.inf, math.inf)
    assert events[-1]["zo/atoms/fd_snr_db"] == ["inf"] * 12 + ["nan"] * 4
    assert (history[-1]["zo/atoms/infinite"], history[-1]["zo/atoms/unvisited"]) == (12, 4)
    assert "zo/atoms/fd_snr_db" not in history[-1]  # nothing finite to draw
    wandb.teardown()


# Which mode


class FakeRun:
    """Stands for what wandb.init returns."""

    def __init__(self):
        self.rows, self.summary, self.finished = [], {}, False
        self.log, self.define_metric = self.rows.append, lambda *_, **__: None

    def finish(self):
        self.finished = True


@pytest.fixture
def calls(monkeypatch, tmp_path):
    """No key, no mode, no network; calls of wandb.init are noted instead of made."""
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))

    def no_network(*_):
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", no_network)
    monkeypatch.setattr(socket, "getaddrinfo", no_network)
    noted = []

    def init(**options):
        noted.append(options)
        return FakeRun()

    monkeypatch.setattr(wandb, "init", init)
    return noted


def tracker(tmp_path, mode="auto"):
    return tracking.WandbTracker(tmp_path, mode=mode, **OPTIONS)


@pytest.mark.parametrize(
    ("given", "environment", "used"),
    [
        ("auto", {}, "offline"),
        ("auto", {"WANDB_API_KEY": KEY}, "online"),
        ("auto", {"netrc": "api.wandb.ai"}, "online"),
        ("auto", {"netrc": "api.wandb.ai", "WANDB_BASE_URL": "https://wandb.example.org"}, "offline"),
        ("auto", {"WANDB_MODE": "online"}, "online"),
        ("offline", {}, "offline"),
        ("online", {}, "online"),
        ("online", {"WANDB_MODE": "offline"}, "offline"),
        ("offline", {"WANDB_MODE": "disabled"}, "disabled"),
    ],
)
def test_a_run_is_online_with_a_key_or_on_request_and_the_environment_wins(
    given, environment, used, calls, tmp_path, monkeypatch
):
    if host := environment.get("netrc"):
        (tmp_path / "netrc").write_text(f"machine {host}\n  login user\n  password {KEY}\n", encoding="utf-8")
    for name in set(environment) - {"netrc"}:
        monkeypatch.setenv(name, environment[name])
    tracker(tmp_path, given)
    (options,) = calls
    assert (options["mode"], options["dir"]) == (used, str(tmp_path))
    assert options.items() >= OPTIONS.items()
    assert options["settings"].finish_timeout == tracking.FINISH_TIMEOUT_SECONDS


# Lists


@pytest.mark.parametrize(
    ("values", "counted"),
    [
        *(([1.0, 2.0, 4.0], 3), ([20.0], 1), ([20.0, math.nextafter(20.0, 21.0)], 2)),
        *(([math.inf, 3.0, -math.inf, math.nan], 1), ([], 0), ([math.nan], 0), ([math.inf, -math.inf], 0)),
    ],
)
def test_a_list_is_a_histogram_of_what_is_finite_and_left_out_if_nothing_is(values, counted, calls, tmp_path):
    made = tracker(tmp_path)
    event = {"step": 3, "levels": values}
    made.log(event)
    (row,) = made._run.rows
    assert row["step"] == 3
    assert ("levels" in row) is (counted > 0)
    if counted:
        assert isinstance(row["levels"], wandb.Histogram)
        assert sum(row["levels"].histogram) == counted
    assert event["levels"] is values


def test_what_wandb_cannot_hold_is_left_out_of_the_summary_and_is_text_in_a_table(calls, tmp_path):
    made = tracker(tmp_path)
    made.table("probe", ["rank", "fd_snr"], [[1, math.inf], [4, 2.5]])
    (row,) = made._run.rows
    assert row["probe"].columns == ["rank", "fd_snr"]
    assert row["probe"].data == [[1, "inf"], [4, 2.5]]
    made.finish({"status": "done", "loss": 0.5, "snr": math.inf, "x": math.nan})
    assert made._run.summary == {"status": "done", "loss": 0.5}
    assert made._run.finished


# Faults


@pytest.mark.parametrize("error", [CommError("no route\nto host"), UsageError("api_key not configured"), OSError("x")])
def test_without_a_network_a_run_goes_on_offline_with_one_warning(error, calls, tmp_path, monkeypatch):
    def init(**options):
        calls.append(options)
        if options["mode"] == "online":
            raise error
        return FakeRun()

    monkeypatch.setattr(wandb, "init", init)
    with pytest.warns(RunWarning) as caught:
        made = tracker(tmp_path, "online")
    first_line = str(error).splitlines()[0]
    assert [str(w.message) for w in caught] == [
        f"W&B cannot be reached ({first_line}); recording offline, `wandb sync` uploads it later"
    ]
    assert [options["mode"] for options in calls] == ["online", "offline"]
    made.log({"step": 1})
    assert made._run.rows == [{"step": 1}]


@pytest.mark.parametrize("mode", ["offline", "online"])
def test_where_not_even_offline_works_a_run_goes_on_without(mode, calls, tmp_path, monkeypatch):
    monkeypatch.setattr(wandb, "init", Mock(side_effect=CommError("broken")))
    with pytest.warns(RunWarning) as caught:
        made = tracker(tmp_path, mode)
    assert len(caught) == (2 if mode == "online" else 1)
    assert str(caught[-1].message) == "W&B stopped recording (broken); metrics.jsonl goes on"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made.log({"step": 1})
        made.finish({"x": 1})


@pytest.mark.parametrize("broken", ["log", "finish"])
@pytest.mark.parametrize("error", [None, SystemExit(-9), ConnectionResetError("Connection lost")])
def test_a_fault_on_the_way_warns_once_and_stays_silent(broken, error, calls, tmp_path, monkeypatch):
    """And so does what wandb raises when it is let go."""
    monkeypatch.setattr(wandb, "teardown", Mock(side_effect=error))
    made = tracker(tmp_path)
    setattr(made._run, broken, Mock(side_effect=RuntimeError("service died")))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for step in range(3):
            made.log({"step": step})
        made.finish({})
        made.finish({})
    assert [str(w.message) for w in caught] == ["W&B stopped recording (service died); metrics.jsonl goes on"]


def test_a_run_survives_a_tracker_that_dies(tmp_path, monkeypatch):
    made = FakeRun()
    made.log = Mock(side_effect=RuntimeError("service died"))
    monkeypatch.setattr(wandb, "init", lambda **_: made)
    words = [word for word in SMALL if word != "tracker=none"]
    ended = zo_run(*words, "budget.queries=8", f"runtime.root={tmp_path}", env={"WANDB_MODE": "offline"})
    assert ended.code == 0
    (line,) = ended.err.splitlines()
    assert line == "zo-run: warning: W&B stopped recording (service died); metrics.jsonl goes on"
    assert len(read_jsonl(the_run(tmp_path) / "metrics.jsonl")) > 3


class Server(BaseHTTPRequestHandler):
    """As much of W&B as it takes to begin a run; `mode` says how it answers."""

    mode = "well"
    end = threading.Event()

    def do_POST(self):
        query = self.rfile.read(int(self.headers["Content-Length"])).decode()
        if self.mode == "never":
            self.end.wait(30)
            return
        data = {}
        if "upsertBucket" in query:
            project = {"name": "p", "entity": {"name": "e"}}
            data = {"upsertBucket": {"bucket": {"id": "i", "name": "n", "project": project}, "inserted": True}}
        elif "createRunFiles" in query:
            data = {"createRunFiles": {"runID": "i", "uploadHeaders": [], "files": []}}
        answer = json.dumps({"data": data}).encode()
        self.send_response(500 if self.mode == "500" else 200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    """A W&B on this machine, where a key is configured. A test shortens only the wait that is in vain."""
    wandb.teardown()
    monkeypatch.setattr(Server, "end", threading.Event())
    with ThreadingHTTPServer(("127.0.0.1", 0), Server) as listening:
        listening.daemon_threads = True
        thread = threading.Thread(target=listening.serve_forever, args=(0.05,))
        thread.start()
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{listening.server_port}")
        monkeypatch.setenv("WANDB_API_KEY", KEY)
        monkeypatch.delenv("WANDB_MODE")
        yield listening
        Server.end.set()
        listening.shutdown()
        thread.join()
    wandb.teardown()


def recorded(tmp_path, change=lambda: None):
    """Warnings of a tracker that logs two rows and finishes, after a change between the rows."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", RunWarning)
        made = tracker(tmp_path)
        made.log({"step": 0})
        change()
        made.log({"step": 1})
        made.finish({"status": "done"})
    return [str(w.message) for w in caught if w.category is RunWarning]


@pytest.mark.parametrize("fault", ["500", "never", "refused"])
def test_a_server_that_does_not_serve_costs_one_warning(fault, server, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(Server, "mode", fault)
    monkeypatch.setattr(tracking, "INIT_TIMEOUT_SECONDS", 1)
    if fault == "refused":
        server.socket.close()
    (warning,) = recorded(tmp_path)
    assert warning.startswith("W&B cannot be reached (")
    assert list(tmp_path.glob("wandb/offline-run-*/run-*.wandb"))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("fault", ["500", "never"])
def test_a_server_that_stops_serving_on_the_way_is_not_waited_for(fault, server, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(tracking, "INIT_TIMEOUT_SECONDS", 300)
    monkeypatch.setattr(tracking, "FINISH_TIMEOUT_SECONDS", 1)
    messages = recorded(tmp_path, lambda: monkeypatch.setattr(Server, "mode", fault))
    assert messages == ["W&B stopped recording (Timed out finishing run.); metrics.jsonl goes on"]
    assert capfd.readouterr() == ("", "")

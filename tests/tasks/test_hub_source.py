"""The Hub: one commit and no other, no network where none is needed, and every file of it."""

import hashlib
from types import SimpleNamespace

import huggingface_hub
import pytest
from huggingface_hub import HfApi, constants

from tests.cli.helpers import configure
from tests.tasks.helpers import INT, LONG, SENTENCES, TEXT, sentences, sst2, write_parquet
from zo_runner.config.instantiate import build
from zo_runner.errors import UserError
from zo_runner.tasks import hub
from zo_runner.tasks.files import local_files
from zo_runner.tasks.sources import source

COMMIT, OTHER = "bcdcba79d07bc864c1c254ccfcedcce55bcc9a8c", "0" * 40


def task(**arguments):
    sizes = {"num_train": 6, "num_dev": 4, "num_test": 5}
    return build(configure("task=sst2").task)(**sizes, **arguments)


def prompts(part):
    return {example.prompt for example in part}


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache of the Hub's library, and no network."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub" / "datasets--nyu-mll--glue"


@pytest.fixture
def online(cache, monkeypatch):
    """A Hub that has the commit; what was asked of it stands in the list that is returned."""
    asked = []

    def dataset_info(self, dataset, *, revision, timeout):
        asked.append((dataset, revision, timeout))
        names = ["README.md", "cola/train-00000-of-00001.parquet"]
        names += [f"sst2/{split}-00000-of-00001.parquet" for split in ("test", "train", "validation")]
        return SimpleNamespace(siblings=[SimpleNamespace(rfilename=name) for name in names])

    def snapshot_download(*, repo_id, repo_type, revision, allow_patterns=None, local_files_only=False):
        if local_files_only:
            return local(repo_id, repo_type=repo_type, revision=revision, local_files_only=True)
        asked.append((repo_id, repo_type, revision, allow_patterns))
        return str(sst2(cache / "snapshots" / revision))

    local = huggingface_hub.snapshot_download
    monkeypatch.setattr(HfApi, "dataset_info", dataset_info)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    return asked


# A local copy


def test_a_local_copy_needs_neither_the_hub_nor_its_library(tmp_path, monkeypatch):
    monkeypatch.setattr(hub, "find", None)
    splits = task(path=str(sst2(tmp_path)), dataset=None, revision=None).load(0)
    assert [len(part) for part in (splits.train, splits.dev, splits.test)] == [6, 4, 5]
    assert all(prompt.startswith("train ") for prompt in prompts(splits.train) | prompts(splits.dev))
    assert all(prompt.startswith("validation ") for prompt in prompts(splits.test))
    assert not prompts(splits.train) & prompts(splits.dev)


@pytest.mark.parametrize("place", ["sst2", "data", "."])
def test_files_lie_in_the_folder_of_the_subset_or_in_data_or_at_the_top(place, tmp_path):
    for split in ("train", "validation"):
        write_parquet(tmp_path / place / f"{split}-00000-of-00001.parquet", sentences(12, split), SENTENCES)
    write_parquet(tmp_path / "cola" / "train-00000-of-00001.parquet", sentences(12, "cola"), SENTENCES)
    splits = task(path=str(tmp_path)).load(0)
    assert "cola" not in "".join(prompts(splits.train) | prompts(splits.dev) | prompts(splits.test))


def test_the_subset_comes_before_data_and_both_splits_come_from_one_folder(tmp_path):
    sst2(tmp_path)
    write_parquet(tmp_path / "data" / "train-00000-of-00001.parquet", sentences(12, "data"), SENTENCES)
    assert "data" not in "".join(prompts(task(path=str(tmp_path)).load(0).train))
    (tmp_path / "sst2" / "train-00000-of-00001.parquet").unlink()
    with pytest.raises(UserError, match=r"every file of sst2/train-\*\.parquet; it has none\."):
        task(path=str(tmp_path)).load(0)


def test_the_rows_of_several_files_come_in_the_order_asked_for(tmp_path):
    files = [write_parquet(tmp_path / f"{i}.parquet", sentences(5, f"file {i}"), SENTENCES) for i in range(2)]
    assert hub.count(files) == 10
    found = [row["sentence"] for row in hub.rows(files, [7, 0, 9, 4, 7])]
    assert found == ["file 1 2 ", "file 0 0 ", "file 1 4 ", "file 0 4 ", "file 1 2 "]


def test_of_several_files_of_a_split_none_may_be_missing(tmp_path):
    (sst2(tmp_path) / "sst2" / "train-00000-of-00001.parquet").unlink()
    for i in (0, 2):
        write_parquet(tmp_path / "sst2" / f"train-0000{i}-of-00003.parquet", sentences(12), SENTENCES)
    with pytest.raises(UserError, match=r"it has sst2/train-00000-of-00003\.parquet, sst2/train-00002-of-00003"):
        task(path=str(tmp_path)).load(1)


def test_the_record_holds_the_sha256_of_every_file(tmp_path):
    folder = sst2(tmp_path)
    files = task(path=str(folder)).load(0).files
    assert files == {
        f"sst2/{split}-00000-of-00001.parquet": hashlib.sha256(
            (folder / "sst2" / f"{split}-00000-of-00001.parquet").read_bytes()
        ).hexdigest()
        for split in ("train", "validation")
    }
    node = {"format": "hub", "path": str(folder), "config": "sst2"}
    assert [file.relative_to(folder).as_posix() for file in local_files(node)] == list(files)


@pytest.mark.parametrize("path", ["empty", "missing"])
def test_a_folder_without_the_files_is_refused_with_their_names(path, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError) as refusal:
        task(path=str(tmp_path / path)).load(0)
    assert str(refusal.value) == (
        f"Invalid task.path: '{tmp_path / path}'. Must be a dataset with files sst2/{{train,validation}}-*.parquet or "
        "data/{train,validation}-*.parquet or {train,validation}-*.parquet."
    )


def test_a_file_that_is_not_parquet_is_refused_by_name(tmp_path):
    file = sst2(tmp_path) / "sst2" / "train-00000-of-00001.parquet"
    file.write_text("version https://git-lfs.github.com/spec/v1\n", encoding="utf-8")
    with pytest.raises(UserError, match=rf"^Invalid {file}: .*\. Must be parquet files\.$"):
        task(path=str(tmp_path)).load(0)


# Rows


def refused(folder, **row):
    columns = {"sentence": TEXT, "label": LONG, "idx": INT}
    rows = [{key: value for key, value in {**good, **row}.items() if value != "none"} for good in sentences(12)]
    columns = {key: kind for key, kind in columns.items() if row.get(key) != "none"}
    for split in ("train", "validation"):
        write_parquet(folder / "data" / f"{split}-00000-of-00001.parquet", rows, columns)
    with pytest.raises(UserError) as refusal:
        task(path=str(folder)).load(0)
    return str(refusal.value)


def test_a_label_outside_the_set_is_refused_with_the_row(tmp_path):
    first = task(path=str(sst2(tmp_path / "good", rows=12))).load(0).train[0].prompt.split()[1]
    assert refused(tmp_path, label=-1) == f"Invalid label at train[{first}]: -1. Must be one of 0, 1."


def test_a_missing_column_is_refused_with_the_columns_that_there_are(tmp_path):
    assert refused(tmp_path, sentence="none").endswith(
        ": no 'sentence'. Must have every field of task.template; it has: label, idx."
    )
    assert refused(tmp_path, label="none").endswith(
        ": no 'label'. Must have the key that task.label_field names; it has: sentence, idx."
    )


# The commit


@pytest.mark.parametrize("revision", [None, "main", COMMIT[:39], COMMIT.upper(), COMMIT + "\n", "refs/pr/2"])
def test_anything_but_a_whole_commit_is_refused(revision):
    with pytest.raises(UserError) as refusal:
        task(revision=revision)
    assert str(refusal.value).startswith(f"Invalid task.revision: {revision!r}. Must be the 40 hexadecimal digits")


@pytest.mark.parametrize("dataset", [None, "glue", "a/b/c", "nyu-mll/", ""])
def test_a_dataset_has_an_owner_and_a_name(dataset):
    with pytest.raises(UserError, match=r"^Invalid task\.dataset: .*Must be the id of a dataset on the Hub"):
        task(dataset=dataset)


def test_a_cached_commit_needs_no_network(cache, monkeypatch):
    sst2(cache / "snapshots" / COMMIT)
    monkeypatch.setattr(HfApi, "dataset_info", None)
    splits = task().load(0)
    assert splits == task(path=str(cache / "snapshots" / COMMIT)).load(0)


def test_another_cached_commit_is_not_taken_for_the_one_asked_for(cache):
    sst2(cache / "snapshots" / OTHER)
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text(OTHER, encoding="utf-8")
    with pytest.raises(UserError) as refusal:
        task().load(0)
    message = str(refusal.value)
    assert message.startswith(f"Invalid task.dataset: 'nyu-mll/glue' at {COMMIT} is not in the cache")
    assert "OfflineModeIsEnabled" in message
    assert message.endswith("or a local copy given as task.path=DIR.")
    assert len(message.splitlines()) == 1


@pytest.mark.parametrize("missing", ["train", "validation"])
def test_a_snapshot_with_a_file_missing_is_not_taken(missing, cache):
    folder = sst2(cache / "snapshots" / COMMIT)
    file = folder / "sst2" / f"{missing}-00000-of-00001.parquet"
    file.unlink()
    with pytest.raises(UserError, match="is not in the cache, or not every file of it"):
        task().load(0)
    file.symlink_to("../../../blobs/gone")  # as when a file of the cache was deleted
    with pytest.raises(UserError, match="is not in the cache, or not every file of it"):
        task().load(0)


def test_only_the_files_of_the_subset_are_downloaded_after_one_quick_question(online):
    task().load(0)
    ((dataset, revision, timeout), download) = online
    assert (dataset, revision) == ("nyu-mll/glue", COMMIT)
    assert timeout <= 5
    wanted = [f"sst2/{split}-00000-of-00001.parquet" for split in ("train", "validation")]
    assert download == ("nyu-mll/glue", "dataset", COMMIT, wanted)
    online.clear()
    task().load(1)
    assert online == []  # now it is in the cache


def test_an_incomplete_snapshot_is_completed(online, cache):
    (sst2(cache / "snapshots" / COMMIT) / "sst2" / "train-00000-of-00001.parquet").unlink()
    task().load(0)
    assert len(online) == 2


def test_without_network_nothing_is_tried_that_takes_its_time(online, monkeypatch):
    def no_network(self, dataset, *, revision, timeout):
        raise TimeoutError("timed out\nwhile waiting")

    monkeypatch.setattr(HfApi, "dataset_info", no_network)
    with pytest.raises(UserError, match=r"cannot be downloaded \(TimeoutError: timed out\)\. Must be reachable"):
        task().load(0)
    assert online == []


def test_a_snapshot_of_another_commit_is_a_broken_contract(cache, monkeypatch):
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda **_: str(sst2(cache / "snapshots" / OTHER)))
    with pytest.raises(RuntimeError, match=f"Must be of commit {COMMIT}"):
        task().load(0)


def test_a_source_takes_its_own_arguments_and_no_others():
    with pytest.raises(TypeError, match="foo"):
        task(foo=1)
    with pytest.raises(TypeError, match="grammar"):
        source(format="jsonl", path=".", grammar="sentiment")
    with pytest.raises(UserError, match=r"^Invalid task\.format: 'xml'\. Must be one of csv, grammar, hub, jsonl, te"):
        source(format="xml")

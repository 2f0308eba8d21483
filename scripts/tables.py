"""The tables of docs/results/: every pocket sweep, run or continued, and what it ends in.

    python -m scripts.tables FOLDER [NAME ...]      all sweeps, or those named; tables and figures go to FOLDER/NAME

Two runs of one thread each at a time, but for `cost`, whose seconds are only comparable when nothing else runs.
"""

import shutil
import subprocess
import sys
import time
from pathlib import Path

from zo_runner.records.provenance import environment

SWEEPS = ("main_opt", "main_qwen3", "first_order", "rank_grid", "ablation", "noise", "cost")
PARALLEL = ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
KEPT = (".md", ".csv", ".tex", ".svg")


def run(name: str) -> tuple[Path, float]:
    """Run or continue a sweep; its folder, and the seconds it took."""
    started = time.perf_counter()
    words = ["-m", f"+sweeps={name}", "tracker=none", "runtime.threads=1", *(() if name == "cost" else PARALLEL)]
    print(" ".join(["zo-run", *words]), flush=True)
    done = subprocess.run(
        [sys.executable, "-m", "zo_runner.cli", *words], check=True, stdout=subprocess.PIPE, text=True
    )
    return Path(done.stdout.splitlines()[-1]), time.perf_counter() - started


def main() -> None:
    """Run the sweeps, keep their tables and figures, and write down what they come from."""
    folder, names = Path(sys.argv[1]), sys.argv[2:] or SWEEPS
    facts = environment()  # before the first table makes the checkout another
    source = facts["source"]
    commit = source.get("commit", "an installed package") + (" with changes" if source.get("dirty") else "")
    for name in names:
        made, seconds = run(name)
        place = folder / name
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        for file in sorted(made.iterdir()):
            if file.suffix in KEPT:
                shutil.copy(file, place)
        told = f"`zo-run -m +sweeps={name}`, {facts['started'][:10]}, commit {commit}, "
        told += f"{seconds:.0f} s (less where runs are found made)."
        (place / "README.md").write_text(told + "\n", encoding="utf-8")
        print(told, flush=True)


if __name__ == "__main__":
    main()

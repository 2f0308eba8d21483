"""lr=auto against a decade grid: 2 embedded models x 4 methods x 2 ranks, three seeds.

The grid is the method's documented rate (found at rank 8) times 0.01, 0.1, 1, 10, 100, whatever the rank. Its best rate
is the one with the lowest dev loss at the end of the budget, as the mean over the seeds; a run that diverged counts as
infinite. A case is within reach when the mean of lr=auto is above that by at most 5 % of the decrease that the best
rate made. lr=auto pays for its calibration out of the same budget. Its rate follows the curvature: the table has the
first one and the least. Seeds on their own, each against the best of its own grid, stand beside.

    python -m scripts.calibration FOLDER [KEY=VALUE ...]      runs (or reuses) 240 runs below FOLDER, prints the table

The keys are those of zo-run, such as method.lr_scale=0.1 or calibration.walk=2, for the runs with lr=auto.
"""

import json
import math
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

HOME = Path(__file__).resolve().parent.parent
MODELS = ("pocket_opt", "pocket_qwen3")
METHODS = ("mezo", "lora_zo", "naive_atom", "ar1zo")
RANKS = (4, 64)
SEEDS = (0, 1, 2)
FACTORS = (0.01, 0.1, 1.0, 10.0, 100.0)
QUERIES = 2000
ALLOWED = 0.05
# Runs of one thread each; the machine of the report has two cores.
AT_ONCE = 2

Case = tuple[str, str, int]
Results = list[dict[str, Any]]


def grid(method: str) -> list[str]:
    """The rates that lr=auto is compared with."""
    documented = OmegaConf.load(HOME / "conf" / "method" / f"{method}.yaml").lr
    return [f"{documented * factor:g}" for factor in FACTORS]


def run(case: Case, rates: Sequence[str], root: Path, words: Sequence[str] = ()) -> list[Results]:
    """For each rate the results of one case, by seed."""
    model, method, rank = case
    folder = Path(tempfile.mkdtemp(dir=root))
    command = [
        *(sys.executable, "-m", "zo_runner.cli", "-m", f"model={model}", f"method={method}", f"rank={rank}"),
        *(f"method.lr={','.join(rates)}", f"seed={','.join(map(str, SEEDS))}"),
        *(f"budget.queries={QUERIES}", f"budget.eval_every={QUERIES}", "noise=none", "tracker=none"),
        *("runtime.threads=1", f"runtime.root={root}", f"hydra.sweep.dir={folder}", *words),
    ]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=HOME)
    jobs = [json.loads(line) for line in (folder / "jobs.jsonl").read_text(encoding="utf-8").splitlines()]
    results = [_result(Path(job["run"])) for job in jobs]
    return [results[i : i + len(SEEDS)] for i in range(0, len(results), len(SEEDS))]


def _result(folder: Path) -> dict[str, Any]:
    """A run's result, and the least rate that it took a step at."""
    result: dict[str, Any] = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    lines = (folder / "journal.jsonl").read_text(encoding="utf-8").splitlines()
    return {**result, "least": min(json.loads(line)["lr"] for line in lines)}


def judge(auto: Results, others: list[Results]) -> dict[str, Any]:
    """How far auto is from the best rate of the grid, in shares of the decrease that this one made."""
    best = min(others, key=_end)
    by_seed = []
    for i, result in enumerate(auto):
        rivals = [[of_rate[i]] for of_rate in others]
        by_seed.append(_excess([result], min(rivals, key=_end)))
    excess = _excess(auto, best)
    return {
        "rates": [result["lr"] for result in auto],
        "least": min(result["least"] for result in auto),
        "negative": [result["calibration"]["negative"] for result in auto],
        "dev loss": _end(auto),
        "best of grid": best[0]["lr"],
        "its dev loss": _end(best),
        "excess": excess,
        "by seed": by_seed,
        "within": excess <= ALLOWED,
    }


def _end(results: Results) -> float:
    """Mean dev loss at the end."""
    return statistics.fmean(r["metrics"]["dev"]["last"]["loss"] if r["status"] == "done" else math.inf for r in results)


def _excess(auto: Results, best: Results) -> float:
    start = statistics.fmean(result["metrics"]["dev"]["zero_shot"]["loss"] for result in best)
    return (_end(auto) - _end(best)) / (start - _end(best))


def main() -> None:
    """Run, judge, print."""
    root, words = Path(sys.argv[1]).resolve(), sys.argv[2:]
    root.mkdir(parents=True, exist_ok=True)
    cases = [(model, method, rank) for model in MODELS for method in METHODS for rank in RANKS]

    def judged(case: Case) -> dict[str, Any]:
        (auto,) = run(case, ["auto"], root, words)
        return judge(auto, run(case, grid(case[1]), root))

    with ThreadPoolExecutor(AT_ONCE) as pool:
        found = list(pool.map(judged, cases))
    seeds = ", ".join(map(str, SEEDS))
    print(f"pocket_sentiment, {QUERIES} queries, seeds {seeds}; excess: share of the best rate's decrease\n")
    print(
        "| model | method | rank | lr=auto | least | dev loss | best of grid | its dev loss | excess % | within 5 % "
        "| excess % by seed |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    for (model, method, rank), row in zip(cases, found, strict=True):
        rates = " to ".join(f"{rate:.2g}" for rate in sorted({min(row["rates"]), max(row["rates"])}))
        auto = f"| {model} | {method} | {rank} | {rates} | {row['least']:.2g} | {row['dev loss']:.4f} "
        best = f"| {row['best of grid']:.2g} | {row['its dev loss']:.4f} "
        by_seed = ", ".join(f"{100 * excess:.1f}" for excess in row["by seed"])
        print(f"{auto}{best}| {100 * row['excess']:.1f} | {'yes' if row['within'] else 'no'} | {by_seed} |")
    chosen = [rate for row in found for rate in row["rates"]]
    falls = [max(row["rates"]) / row["least"] for row in found]
    negative = [share for row in found for share in row["negative"]]
    alone = [excess <= ALLOWED for row in found for excess in row["by seed"]]
    print(f"\nnegative curvatures at the start: {min(negative):.0%} to {max(negative):.0%}")
    print(f"the rate falls to a {min(falls):.1f}th to a {max(falls):.1f}th of the first")
    print(f"within {ALLOWED:.0%}: {sum(row['within'] for row in found)} of {len(found)}")
    print(f"of single seeds: {sum(alone)} of {len(alone)}")
    print(f"chosen rates span a factor of {max(chosen) / min(chosen):.0f} ({min(chosen):.2g} to {max(chosen):.2g})")


if __name__ == "__main__":
    main()

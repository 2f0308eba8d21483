"""lr=auto against a decade grid: 2 embedded models x 4 methods x 2 ranks, one seed.

The grid is the method's documented rate (found at rank 8) times 0.01, 0.1, 1, 10, 100, whatever the rank. A case is
within reach when the dev loss at the end of the budget is above the best of the grid by at most 5 % of the decrease
that the best of the grid made. lr=auto pays for its calibration out of the same budget. Its rate follows the
curvature: the table has the first one and the least.

    python -m studies.calibration FOLDER      runs (or reuses) 96 runs below FOLDER, prints the table
"""

import json
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

HOME = Path(__file__).resolve().parent.parent
MODELS = ("pocket_opt", "pocket_qwen3")
METHODS = ("mezo", "lora_zo", "naive_atom", "ar1zo")
RANKS = (4, 64)
FACTORS = (0.01, 0.1, 1.0, 10.0, 100.0)
QUERIES = 2000
ALLOWED = 0.05
# Runs of one thread each; the machine of the report has two cores.
AT_ONCE = 2

Case = tuple[str, str, int]


def rates(method: str) -> list[str]:
    """auto, and the grid."""
    documented = OmegaConf.load(HOME / "conf" / "method" / f"{method}.yaml").lr
    return ["auto", *(f"{documented * factor:g}" for factor in FACTORS)]


def run(case: Case, root: Path) -> list[dict[str, Any]]:
    """The results of one case: auto first, then the grid."""
    model, method, rank = case
    folder = Path(tempfile.mkdtemp(dir=root))
    command = [
        *(sys.executable, "-m", "zo_runner.cli", "-m", f"model={model}", f"method={method}", f"rank={rank}"),
        *(f"method.lr={','.join(rates(method))}", f"budget.queries={QUERIES}", f"budget.eval_every={QUERIES}"),
        *("noise=none", "tracker=none", "runtime.threads=1", f"runtime.root={root}", f"hydra.sweep.dir={folder}"),
    ]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=HOME)
    jobs = [json.loads(line) for line in (folder / "jobs.jsonl").read_text(encoding="utf-8").splitlines()]
    results = [json.loads((Path(job["run"]) / "result.json").read_text(encoding="utf-8")) for job in jobs]
    journal = (Path(jobs[0]["run"]) / "journal.jsonl").read_text(encoding="utf-8")
    results[0]["least"] = min(json.loads(line)["lr"] for line in journal.splitlines())
    return results


def judge(results: list[dict[str, Any]]) -> dict[str, Any]:
    """How far auto is from the best of the grid, in shares of that one's decrease."""
    auto, *grid = results
    start = auto["metrics"]["dev"]["zero_shot"]["loss"]
    ends = {r["lr"]: r["metrics"]["dev"]["last"]["loss"] for r in grid if r["status"] == "done"}
    best = min(ends, key=ends.__getitem__)
    end = auto["metrics"]["dev"]["last"]["loss"] if auto["status"] == "done" else float("inf")
    excess = (end - ends[best]) / (start - ends[best])
    return {
        "lr auto": auto["lr"],
        "least": auto["least"],
        "negative": auto["calibration"]["negative"],
        "dev loss": end,
        "best of grid": best,
        "its dev loss": ends[best],
        "excess": excess,
        "within": excess <= ALLOWED,
    }


def main() -> None:
    """Run, judge, print."""
    root = Path(sys.argv[1]).resolve()
    root.mkdir(parents=True, exist_ok=True)
    cases = [(model, method, rank) for model in MODELS for method in METHODS for rank in RANKS]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        found = list(pool.map(lambda case: judge(run(case, root)), cases))
    print(f"pocket_sentiment, {QUERIES} queries, seed 0; excess: share of the best grid run's decrease\n")
    print(
        "| model | method | rank | lr=auto | least | dev loss | best of grid | its dev loss | excess % | within 5 % |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    for (model, method, rank), row in zip(cases, found, strict=True):
        auto = f"| {model} | {method} | {rank} | {row['lr auto']:.2g} | {row['least']:.2g} | {row['dev loss']:.4f} "
        grid = f"| {row['best of grid']:.2g} | {row['its dev loss']:.4f} "
        print(f"{auto}{grid}| {100 * row['excess']:.1f} | {'yes' if row['within'] else 'no'} |")
    chosen = [row["lr auto"] for row in found]
    falls = [row["lr auto"] / row["least"] for row in found]
    negative = [row["negative"] for row in found]
    print(f"\nnegative curvatures at the start: {min(negative):.0%} to {max(negative):.0%}")
    print(f"the rate falls to a {min(falls):.1f}th to a {max(falls):.1f}th of the first")
    print(f"within {ALLOWED:.0%}: {sum(row['within'] for row in found)} of {len(found)}")
    print(f"chosen rates span a factor of {max(chosen) / min(chosen):.0f} ({min(chosen):.2g} to {max(chosen):.2g})")


if __name__ == "__main__":
    main()

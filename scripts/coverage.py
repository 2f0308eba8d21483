"""The coverage cost of atomwise queries: AR1-ZO at one learning rate over the rank, the per-atom signal being equal.

python -m scripts.coverage FOLDER      15 runs below FOLDER, prints the table
"""

import json
import statistics
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

RANKS, SEEDS, QUERIES, LR = (1, 4, 16, 64, 256), (0, 1, 2), 1000, 3e-3


def main() -> None:
    """Run, and print mean and range over seeds."""
    root = Path(sys.argv[1]).resolve()
    command = [
        *(sys.executable, "-m", "zo_runner.cli", "-m", "method=ar1zo", f"method.lr={LR:g}"),
        *(f"rank={','.join(map(str, RANKS))}", f"seed={','.join(map(str, SEEDS))}", f"budget.queries={QUERIES}"),
        *(f"budget.eval_every={QUERIES}", "tracker=none", "runtime.threads=1", f"runtime.root={root}"),
    ]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    found: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for file in sorted(root.glob("*/*/ar1zo/*/result.json")):
        result = json.loads(file.read_text(encoding="utf-8"))
        if result["lr"] == LR and result["budget"]["queries"] == QUERIES:
            found[result["rank"]].append(result)
    print(
        f"ar1zo, pocket_sentiment, pocket_opt, lr {LR:g}, {QUERIES} queries, mean [least, most] of {len(SEEDS)} seeds\n"
    )
    print("| rank | queries until every atom was queried | visits per atom | decrease of dev loss per 1000 queries |")
    print("|---|---|---|---|")
    for rank, results in sorted(found.items()):
        decreases = [
            1000 * (r["metrics"]["dev"]["zero_shot"]["loss"] - r["metrics"]["dev"]["last"]["loss"]) / QUERIES
            for r in results
        ]
        covered = results[0]["coverage"]["queries"]
        spread = f"{statistics.fmean(decreases):.3f} [{min(decreases):.3f}, {max(decreases):.3f}]"
        print(f"| {rank} | {covered} | {QUERIES / 2 / rank:g} | {spread} |")


if __name__ == "__main__":
    main()

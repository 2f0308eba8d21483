"""The signal study of docs/signal.md: job=probe on both embedded models, exact, with injected noise and in bfloat16.

python -m scripts.signal FOLDER      runs (or reuses) six probes, copies tables and figures to FOLDER
"""

import shutil
import subprocess
import sys
from pathlib import Path

MODELS = ("pocket_opt", "pocket_qwen3")
ALL_KINDS = ("probe.ranks=[1,4,16,64,256]", "probe.directions=128", "probe.inits=32")
STUDIES = {
    "float32": ALL_KINDS,
    "injected": (
        *("noise=injected", "noise.std=1e-4", "probe.atoms=[one]", "probe.scalings=[canonical,topology]"),
        *("probe.ranks=[1,4,16,64,256]", "probe.directions=1024", "probe.inits=64"),
    ),
    "bfloat16": (*ALL_KINDS, "runtime.dtype=bfloat16"),
}
KEPT = ("probe.md", "probe.csv", "exponents.csv", "signal.svg", "fd_snr.svg", "sign_agreement.svg")


def main() -> None:
    """Run every study and keep what the documentation shows."""
    folder = Path(sys.argv[1])
    for model in MODELS:
        for name, words in STUDIES.items():
            command = ["zo-run", "job=probe", f"model={model}", "tracker=none", *words]
            print(" ".join(command), flush=True)
            zo_run = [sys.executable, "-m", "zo_runner.cli", *command[1:]]
            done = subprocess.run(zo_run, check=True, capture_output=True, text=True)
            run = Path(done.stdout.strip().rsplit("; ", 1)[1])
            place = folder / f"{model}-{name}"
            place.mkdir(parents=True, exist_ok=True)
            for file in KEPT:
                shutil.copy(run / file, place / file)
            print(done.stdout.strip().splitlines()[-1], flush=True)


if __name__ == "__main__":
    main()

"""Adding a method is one file, one YAML, one transcription, one reduction, and nothing else.

The four are written to a folder that stands beside the package's own (`cases.ADDED`); then the tests that hold for
every method run on it, in a process of their own.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

HOME = Path(__file__).parents[2]
SUITE = [
    *("tests/conformance", "tests/reference", "tests/test_directions.py"),
    "--ignore=tests/conformance/test_adding_a_method.py",
]

METHOD = '''"""Sphere: two-sided slopes along a direction of fixed length in every tensor.

    theta <- theta - lr * slope * u,   slope = (l(theta + eps u) - l(theta - eps u)) / (2 eps)
    u = sqrt(n) z / |z| in a tensor of n numbers,   z ~ N(0, I)
"""

from zo_runner.methods.zeroth_order import ZerothOrder


class Sphere(ZerothOrder):
    def __init__(self, params, *, lr, eps, seed=0):
        super().__init__(params, lr=lr, eps=eps, seed=seed)

    def direction(self, step):
        def u(key, param):
            z = self.normal(param, tuple(param.shape), step, *key)
            return z * (z.numel() ** 0.5 / z.norm())

        return self.over_tensors(u)
'''

CONFIGURATION = """
name: sphere
trains: full
scaling: canonical
_target_: zo_runner.methods.sphere.Sphere
_partial_: true
lr: 1.0e-3
eps: 1.0e-3
lr_scale: 0.05
fallback: {lr: 1.0e-3, eps: 1.0e-3}
"""

TRANSCRIPTION = '''"""Sphere in NumPy: two losses at opposite points of a sphere around theta."""

import numpy as np


def run(problem, z, *, lr, eps, steps):
    theta = dict(problem.theta)
    for t in range(steps):
        u = {}
        for m in theta:
            drawn = z(theta[m].shape, t, m)
            u[m] = drawn * np.asarray(np.sqrt(drawn.size) / np.linalg.norm(drawn), drawn.dtype)
        plus, minus = (problem.loss({m: theta[m] + e * u[m] for m in theta}) for e in (eps, -eps))
        theta = {m: theta[m] - lr * (plus - minus) / (2 * eps) * u[m] for m in theta}
    return theta
'''

REDUCTION = """from tests.conformance.cases import METHODS, Problem, groups_of, method_of


def test_sphere_is_mezo_but_for_the_length_of_its_direction():
    sphere, mezo = (method_of(METHODS[name], Problem(groups_of(METHODS[name]))) for name in ("sphere", "mezo"))
    for u, z in zip(sphere.direction(3), mezo.direction(3), strict=True):
        scale = z.component.norm() / z.component.numel() ** 0.5
        assert (u.component * scale - z.component).abs().max() < 1e-6
"""

# The same method, whose direction is another one whenever it is asked for.
UNSEEDED = METHOD.replace("z = self.normal(param, tuple(param.shape), step, *key)", "z = torch.randn(param.shape)")
UNSEEDED = UNSEEDED.replace("from zo_runner", "import torch\n\nfrom zo_runner", 1)


def suite_on(folder, files, suite=SUITE):
    """Exit code, and output, of the suite's tests of the added method, and of those of the package as a whole."""
    for name, text in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    command = [sys.executable, "-m", "pytest", *suite, str(folder), "-k", "sphere or discovery", "-q", "-rpfE"]
    env = {**os.environ, "ADDED_METHOD": str(folder)}
    ended = subprocess.run(
        [*command, "-p", "no:cacheprovider"], cwd=HOME, env=env, capture_output=True, text=True, check=False
    )
    return ended.returncode, ended.stdout + ended.stderr


def lines(said, word):
    return [line for line in said.splitlines() if line.startswith(word)]


def test_four_files_are_a_method_that_the_whole_suite_finds(tmp_path):
    files = {"methods/sphere.py": METHOD, "conf/sphere.yaml": CONFIGURATION, "reference/sphere.py": TRANSCRIPTION}
    code, said = suite_on(tmp_path, {**files, "test_sphere.py": REDUCTION})
    passed = lines(said, "PASSED")
    assert code == 0, said
    for needed in (
        *("test_rules.py", "test_discovery.py", "test_reference.py", "test_directions.py"),
        *("test_sphere.py::", "written-sphere]", "written-sphere-adapter]", "test_method_follows_its_transcription"),
    ):
        assert any(needed in line for line in passed), needed
    assert len(passed) > 60


@pytest.mark.slow
def test_a_wrong_method_and_one_without_a_yaml_fail(tmp_path):
    """Directions that no seed fixes, and a file whose method nothing builds."""
    files = {"methods/sphere.py": UNSEEDED, "methods/orphan.py": METHOD.replace("Sphere", "Orphan")}
    some = ["tests/conformance/test_rules.py", "tests/conformance/test_discovery.py"]
    code, said = suite_on(tmp_path, {**files, "conf/sphere.yaml": CONFIGURATION}, some)
    failed = lines(said, "FAILED")
    assert code == 1, said
    for needed in (
        "test_every_method_of_the_package_has_a_yaml_that_builds_it",
        "test_a_step_can_be_taken_again_from_its_report_alone",
        "test_the_global_generators_are_neither_read_nor_moved",
    ):
        assert any(needed in line for line in failed), needed

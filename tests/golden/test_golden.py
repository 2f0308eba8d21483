import json

import pytest

from tests.golden import FILE, cases, slopes


@pytest.mark.parametrize(("model", "method"), list(cases()))
def test_first_slopes_are_the_recorded_ones(model: str, method: str) -> None:
    recorded = json.loads(FILE.read_text(encoding="utf-8"))[f"{model}/{method}"]
    # Kernels round differently on other processors: a difference of losses keeps about four digits.
    assert slopes(model, method) == pytest.approx(recorded, rel=1e-2, abs=1e-3)


def test_no_recording_is_left_over() -> None:
    assert set(json.loads(FILE.read_text(encoding="utf-8"))) == {f"{model}/{method}" for model, method in cases()}

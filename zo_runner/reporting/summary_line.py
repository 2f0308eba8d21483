"""The line that ends a run: scores, costs and folder. No torch."""

from pathlib import Path

from zo_runner.records.result import EvaluateResult, ProbeResult, RunResult, TrainResult
from zo_runner.tasks.metrics import metric_of


def closing_line(result: RunResult, path: Path, *, cached: bool) -> str:
    """Scores, costs and folder of a run in one line; a probe's report stands above it."""
    found = "cached, " if cached else ""
    if isinstance(result, ProbeResult):
        spent = f"{result.queries['probe']} queries, {result.seconds['total']:.0f} s"
        return f"{result.report}\nprobe of {result.cells} cells{', cached' if cached else ''}; {spent}; {path}"
    if isinstance(result, EvaluateResult):
        shots = f", {result.shots}-shot" if result.shots else ("" if result.adapter else ", zero-shot")
        adapter = "" if result.adapter is None else f" with {result.adapter}"
        score = result.metrics[result.split]
        shown = ", ".join(metric_of(name).text(value) for name, value in score.items() if name != "loss")
        return (
            f"{result.model}{adapter}{shots}: {found}{result.split} {shown}, loss {score['loss']:.4f}; "
            f"{result.examples} examples, {result.seconds['eval']:.1f} s; {path}"
        )
    assert isinstance(result, TrainResult)
    parts = [f"{result.label}: {found}{result.status}", *_training(result), f"{result.seconds['total']:.0f} s"]
    return "; ".join(map(str, (*parts, path)))


def _training(result: TrainResult) -> list[str]:
    """Error, scores, signal and charged budget; what there is none of is left out."""
    parts = [result.error] if result.error else []
    text, best = metric_of(result.metric).text, result.score("dev", "best")
    before, at = result.score("dev", "zero_shot"), result.score("dev", "best", "queries")
    if best is not None and before is not None:
        parts.append(f"dev {text(before)} -> {text(best)} at {at} queries")
    test = ((point, result.score("test", point)) for point in ("best", "last"))
    if told := ", ".join(f"{text(score)} ({point})" for point, score in test if score is not None):
        parts.append(f"test {told}")
    if result.signal.get("zo/fd_snr_db") is not None:
        parts.append(f"FD-SNR {result.fd_snr_db:.0f} dB")
    unit, granted = next((unit, limit) for unit, limit in result.budget.items() if limit is not None)
    charged, queries = result.charged(unit), f"{result.charged('queries')} queries"
    spent = {
        "queries": f"{charged} of {granted} queries",
        "tokens": f"{charged} of {granted} tokens in {queries}",
        "seconds": f"{charged:.1f} of {granted:g} s in {queries}",
    }
    return [*parts, spent[unit]]

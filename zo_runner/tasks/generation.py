"""Generation: the model writes an answer, which is compared with one or more gold answers."""

from collections.abc import Sequence
from typing import Any

from zo_runner.errors import UserError, invalid, one_of
from zo_runner.tasks.base import Example, Loss, Scoring, Template
from zo_runner.tasks.family import Family, check_loss, filled
from zo_runner.tasks.metrics import ANSWER_METRICS
from zo_runner.tasks.rows import DataRow


class Generation(Family):
    """Gold answers per row. The first is the text that is learnt, followed by the first stop text.

    Args:
        template: prompt with `{field}` places; the answer follows it after one space, or directly where the template
            ends in a line break.
        answers_field: column of the gold answers: a text; a list of texts, each of them right; or a list of lists, each
            the spans of one right answer.
        prepare: name of the function that prepares a row, see `prepare`; None for none.
        metrics: what dev and test report; the first selects.
        loss: "answer", cross-entropy of the first gold answer, or "f1", 1 - F1 of the generated answer.
        max_new_tokens: longest generated answer.
        stop: texts that end a generated answer.
        max_length: longest prompt and answer together, in tokens; None for what the model can take.
        data: `format` and what that source takes, see `sources`.

    Raises:
        UserError: a malformed template, no metric or one that does not compare answers, an empty stop text.
    """

    def __init__(
        self,
        *,
        template: str,
        answers_field: str,
        prepare: str | None,
        metrics: Sequence[str],
        loss: Loss,
        max_new_tokens: int,
        stop: Sequence[str],
        max_length: int | None,
        **data: Any,
    ) -> None:
        self.template = Template(template)
        check_loss(loss, ("answer", "f1"))
        for metric in metrics:
            if metric not in ANSWER_METRICS:
                raise invalid("task.metrics", metric, one_of(ANSWER_METRICS))
        if not metrics:
            raise invalid("task.metrics", [], f"at least one of {', '.join(ANSWER_METRICS)}")
        if isinstance(stop, str) or not all(isinstance(text, str) and text for text in stop):
            raise invalid("task.stop", stop, "a list of texts, none of them empty")
        scoring = Scoring(
            loss=loss,
            metrics=tuple(metrics),
            max_length=max_length,
            max_new_tokens=max_new_tokens,
            stop=tuple(stop),
        )
        self.answers_field = answers_field
        super().__init__(scoring, prepare, data)

    def _example(self, row: DataRow) -> Example:
        prompt = filled(self.template, row)
        value = row.require(self.answers_field, "the key that task.answers_field names")
        golds = [_spans(gold) for gold in (value if isinstance(value, list) else [value])]
        if not golds or not all(golds):
            allowed = "a text, a list of texts, or a list of lists of texts, none of them empty"
            raise UserError(f"Invalid answers at {row.place}: {value!r}. Must be {allowed}.")
        learnt = ", ".join(golds[0]) + "".join(self.scoring.stop[:1])
        return Example(prompt, (learnt,), answers=tuple(dict.fromkeys(golds)))


def _spans(gold: object) -> tuple[str, ...]:
    """The spans of one gold answer; empty where one of them is no text, or an empty one."""
    spans = gold if isinstance(gold, list) else [gold]
    if not all(isinstance(span, str) or type(span) in (int, float) for span in spans):
        return ()
    texts = tuple(str(span).strip() for span in spans)
    return texts if all(texts) else ()

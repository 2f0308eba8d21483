"""Preparation of rows before a template is filled in: one small function per data set.

Each takes a row's values and returns the ones that it changes or adds. The texts are those of MeZO's templates (Malladi
et al. 2023, arXiv:2305.17333).
"""

from collections.abc import Callable, Mapping
from typing import Any

from zo_runner.errors import invalid, one_of
from zo_runner.tasks.rows import DataRow

Values = Mapping[str, Any]

_CONJUNCTIONS = {"effect": "so", "cause": "because"}


def boolq(values: Values) -> dict[str, Any]:
    """The question begins with a capital and ends in a question mark."""
    question = _text(values, "question")
    return {"question": question[:1].upper() + question[1:] + ("" if question.endswith("?") else "?")}


def wsc(values: Values) -> dict[str, Any]:
    """The pronoun in lower case."""
    return {"span2_text": _text(values, "span2_text").lower()}


def copa(values: Values) -> dict[str, Any]:
    """The premise without its full stop, a conjunction for the question, choices that go on from there.

    As in MeZO's code, the whole first word of a choice is put in lower case, unless it is "I".
    """
    if values.get("question") not in _CONJUNCTIONS:
        raise ValueError(f"the question {values.get('question')!r} is neither 'cause' nor 'effect'")
    changed = {"premise": _text(values, "premise").removesuffix("."), "conjunction": _CONJUNCTIONS[values["question"]]}
    for name in ("choice1", "choice2"):
        first, *rest = _text(values, name).split(" ")
        changed[name] = " ".join([first if first == "I" else first.lower(), *rest])
    return changed


def record(values: Values) -> dict[str, Any]:
    """The highlights as a list, `options`: the query with each entity in its gap, `correct`: numbers of the answers."""
    query, entities, answers = _text(values, "query"), _texts(values, "entities"), _texts(values, "answers")
    return {
        "passage": _text(values, "passage").replace("@highlight\n", "- "),
        "options": [query.replace("@placeholder", entity) for entity in entities],
        "correct": [entities.index(answer) for answer in answers if answer in entities],
    }


def squad(values: Values) -> dict[str, Any]:
    """`answers`: the texts, each of them right."""
    return {"answers": _texts(_struct(values, "answers"), "text", "answers.text")}


def drop(values: Values) -> dict[str, Any]:
    """`answers`: the spans, each of them right on its own.

    Of a training row the spans are one answer, of several parts where the question asks for several things. Of a
    validation row they are the answers of all annotators, one after the other: where one ends and the next begins is
    not in the data. So DROP's own F1, which wants all parts, cannot be computed from this data set: every span counts
    as right on its own, as in MeZO's code, also for drop_f1.
    """
    return {"answers": _texts(_struct(values, "answers_spans"), "spans", "answers_spans.spans")}


PREPARE: Mapping[str, Callable[[Values], dict[str, Any]]] = {
    "boolq": boolq,
    "wsc": wsc,
    "copa": copa,
    "record": record,
    "squad": squad,
    "drop": drop,
}


def preparation(name: str | None) -> Callable[[DataRow], DataRow]:
    """The function that prepares a row; None for one that leaves it as it is.

    Raises:
        UserError: an unknown name; when called, a row that lacks what the function needs.
    """
    if name is None:
        return lambda row: row
    if name not in PREPARE:
        raise invalid("task.prepare", name, f"null or {one_of(PREPARE)}")

    def prepare(row: DataRow) -> DataRow:
        try:
            return DataRow({**row.values, **PREPARE[name](row.values)}, row.place)
        except ValueError as error:
            raise row.refused(str(error), f"be a row as task.prepare={name} takes it") from None

    return prepare


def _text(values: Values, name: str) -> str:
    if not isinstance(values.get(name), str):
        raise ValueError(f"no text {name!r}")
    return str(values[name]).strip()


def _texts(values: Values, name: str, shown: str | None = None) -> list[str]:
    found = values.get(name)
    if not isinstance(found, list) or not all(isinstance(text, str) for text in found):
        raise ValueError(f"no list of texts {shown or name!r}")
    return found


def _struct(values: Values, name: str) -> Values:
    found = values.get(name)
    return found if isinstance(found, Mapping) else {}

"""Each question about recorded files has one sentence, which names what the question has."""

from collections import Counter
from dataclasses import fields
from inspect import isabstract
from string import Formatter

from rollout.engine.files import questions
from rollout.engine.files.questions import QUESTION_TEXTS, ReadingQuestion, describe_question


def list_kinds():
    classes = [value for value in vars(questions).values() if isinstance(value, type)]
    kinds = [kind for kind in classes if issubclass(kind, ReadingQuestion) and not isabstract(kind)]
    return [kind for kind in kinds if not set(kind.__subclasses__()) & set(kinds)]


def test_each_kind_of_question_has_one_sentence_of_its_own():
    described = Counter([*describe_question.registry, *QUESTION_TEXTS])
    assert set(list_kinds()) == set(described) - {object}
    assert set(described.values()) == {1}


def test_each_sentence_names_fields_that_its_question_has():
    for kind, text in QUESTION_TEXTS.items():
        names = {name for _, name, _, _ in Formatter().parse(text) if name}
        assert names <= {f"question.{field.name}" for field in fields(kind)}

"""Each kind of a fact has words: a page that could not say one would be an error."""

import inspect
import re

from rollout.engine.words import evidence_text
from rollout.kernel import facts, words

NOT_SAID = {"KIND"}
"""The name of the key, not a kind."""


def test_each_kind_of_a_fact_is_said():
    kinds = {
        name for name, value in vars(facts).items() if name.isupper() and isinstance(value, str)
    }
    texts = "\n".join(map(inspect.getsource, (words, evidence_text)))
    assert len(kinds) > 30
    assert kinds - set(re.findall(r"\b[A-Z_]+\b", texts)) == NOT_SAID


def test_each_requirement_is_said_with_what_it_has():
    kinds = (facts.UNITS, facts.REVIEWERS, facts.DAYS, facts.MISSING, facts.RECENT_MISSING)
    kinds += (facts.NO_UNIT, facts.MANY_VALUES, facts.FEW_OF_VALUE)
    assert {*kinds} == words.REQUIREMENTS.keys()
    for kind in kinds:
        said = words.say_requirement(facts.UnmetRequirement(kind, 3, 7, "form=x", 0.05))
        assert "{" not in said

"""Whatever stands in a policy file, it is loaded or refused with lines: nothing else happens."""

import copy
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rollout.kernel.policy_files.reader import InvalidPolicyError, parse_policy
from rollout.kernel.policy_files.yaml_reader import DocumentValue, read_document
from tests.properties import examples
from tests.shipped_policies import SHIPPED_POLICIES

FILES = [
    read_document(path.read_text(encoding="utf-8")).value for path in SHIPPED_POLICIES.values()
]
JUNK: list[DocumentValue] = [
    *("", "x", "95%", "95", "-1", "0", "nan", "1e999", "shadow", "other", "*", "2h", "0s", "ü"),
    *("SH", "PH off; Mo", "sunrise-sunset", "24/7", "case"),
    *([], {}, ["a"], {"a": "b"}, [[]], {"measure": "cost"}),
]  # fmt: skip


def holders(value: DocumentValue) -> list[DocumentValue]:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    found = [deep for item in inner for deep in holders(item)]
    return [value, *found] if isinstance(value, dict | list) and value else found


def damaged(value: DocumentValue, draw: st.DataObject) -> DocumentValue:
    spoilt = copy.deepcopy(value)
    for _ in range(draw.draw(st.integers(1, 4))):
        places = holders(spoilt)
        if not places:
            break
        holder = draw.draw(st.sampled_from(places))
        key = draw.draw(
            st.sampled_from(sorted(holder) if isinstance(holder, dict) else range(len(holder)))
        )
        if draw.draw(st.booleans()):
            holder[key] = copy.deepcopy(draw.draw(st.sampled_from(JUNK)))
        else:
            del holder[key]
    return spoilt


def refusals(text: str) -> tuple[str, ...]:
    try:
        parse_policy(text)
    except InvalidPolicyError as refusal:
        return tuple(map(str, refusal.faults)) or ("refused without a word",)
    return ()


@pytest.mark.slow
@examples(given(st.data()), fast=40, whole=150)
def test_a_damaged_policy_is_loaded_or_refused_with_lines(draw):
    text = json.dumps(damaged(draw.draw(st.sampled_from(FILES)), draw), indent=1)
    for fault in refusals(text):
        name, line, field, says = fault.split(":", 3)
        assert name == "policy.yaml"
        assert 1 <= int(line) <= text.count("\n") + 1
        assert field.strip()
        assert len(says) > 10


@settings(max_examples=150)
@given(st.text(max_size=60))
def test_any_text_is_loaded_or_refused_in_words(text):
    assert all(fault.startswith("policy.yaml:") for fault in refusals(text))

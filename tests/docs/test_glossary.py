"""The glossary is short, plain, and has no word that the field says otherwise."""

import re

import pytest

from tests.docs.pages import text_of

MAX_ENTRIES = 45
SENTENCE_END = re.compile(r"[.!?](?=\s|$)")

# Private words for which the field has one of its own. "permission" is not among them: it is the
# field's word for what an account may do, and refused only as a name of a permit.
REFUSED = {
    *("person", "people", "somebody", "whoever", "machine", "box", "right", "door", "place"),
    *("house", "house chain", "household", "rung", "line", "take back", "take away"),
    *("verdict", "yes", "no", "word", "set aside", "seat", "hold", "sheet", "known case", "check"),
    *("left out", "shown", "draw", "band", "permitted", "unpermitted", "far", "reach"),
    *("aftermath", "board", "glance", "mark", "course", "standing", "stood", "past", "told"),
    *("happening", "dearest", "loosening", "evolve", "fold", "chain", "row", "waits"),
}


def entries():
    """Return term, meaning and nearest common term of each row."""
    lines = text_of("docs/glossary.md").splitlines()
    rows = [line.strip("| ").split(" | ") for line in lines if line.startswith("| ")]
    return [tuple(cell.strip() for cell in row) for row in rows[1:]]


def test_it_has_at_most_45_entries():
    assert 30 <= len(entries()) <= MAX_ENTRIES


def test_entries_are_in_alphabetical_order_and_stand_once():
    terms = [term for term, *_ in entries()]
    assert terms == sorted(set(terms), key=str.casefold)


@pytest.mark.parametrize("entry", entries(), ids=lambda entry: entry[0])
def test_an_entry_is_a_term_of_the_field_in_one_or_two_sentences(entry):
    term, meaning, nearest = entry
    assert not {term, term.removesuffix("s")} & REFUSED
    assert meaning.endswith(".")
    assert len(SENTENCE_END.findall(meaning)) <= 2
    assert nearest


def test_private_words_stand_in_no_meaning():
    private = {"rung", "house", "verdict", "whoever", "somebody", "seat", "box"}
    for term, meaning, _ in entries():
        assert not private & set(re.findall(r"[a-z]+", meaning.casefold())), term

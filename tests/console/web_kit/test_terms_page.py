"""The page of terms explains every state that pages show."""

from rollout.engine.words.state_text import CELL_STATES


def test_each_state_of_a_cell_is_explained_in_the_order_in_which_it_counts(browser):
    page = browser.as_("vic").page("/glossary")
    positions = [page.index(f"{state.meaning}</td>") for state in CELL_STATES.values()]
    assert positions == sorted(positions)
    assert all(f"{state.tag}</span>" in page for state in CELL_STATES.values())

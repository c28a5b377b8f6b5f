"""The example of the page on the library runs as written, in an install without extras."""

import re

import pytest

import rollout
from tests import recorded
from tests.docs.pages import text_of
from tests.lean import run_lean

PAGE = text_of("docs/how-to/library.md")
EXAMPLES = re.findall(r"^```python\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)


@pytest.mark.slow
def test_the_examples_run_in_order_without_extras(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recorded.write_records(tmp_path)
    (tmp_path / "equal.csv").write_text("human,model\n" + "sound,sound\ntorn,torn\n" * 30)
    first, second, third = EXAMPLES
    stricter = 'Path("strict.yaml").write_text(text.replace("0.95", "0.97"))\n'
    ran = run_lean(first + stricter + second + third)
    assert ran.returncode == 0, ran.stderr
    for text in ("Plan of ramps", "ramp-a", "intact", "nobody approves", "--equal-sides", "60 1.0"):
        assert text in ran.stdout


def test_the_page_names_every_name_of_the_library():
    assert {name for name in rollout.__all__ if f"`{name}`" in PAGE or f".{name}`" in PAGE} == {
        *rollout.__all__
    }

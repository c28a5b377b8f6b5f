from rollout.kernel.policy_files.yaml_reader import DocumentFault, format_path, read_document

TEXT = """\
sites: [46.10, no]
gates:
  - to: supervised
    require:
      - {measure: agreement, at_least: 95%}
note: >-
  two
  lines
"""


def test_scalars_stay_letters():
    assert read_document(TEXT).value == {
        "sites": ["46.10", "no"],
        "gates": [
            {"to": "supervised", "require": [{"measure": "agreement", "at_least": "95%"}]},
        ],
        "note": "two lines",
    }


def test_each_place_has_its_line():
    document = read_document(TEXT)
    places = [("sites", 1), ("gates",), ("gates", 0, "to"), ("gates", 0, "require", 0, "at_least")]
    assert [document.find_line(place) for place in places] == [1, 2, 3, 5]


def test_a_place_that_is_missing_has_the_line_of_what_it_is_missing_in():
    assert read_document(TEXT).find_line(("gates", 0, "risk")) == 3


def test_a_path_is_formatted_as_text():
    assert format_path(("levers", 1, "number", "from")) == "levers[1].number.from"
    assert format_path(()) == "(file)"


def test_an_empty_file_is_an_empty_mapping():
    assert read_document("# nothing yet\n").value == {}


def test_letters_beyond_the_basic_plane_survive_json():
    assert read_document('{"rollout": "\\ud83d\\udc3b"}').value == {"rollout": "\U0001f43b"}


def test_a_key_that_is_no_word_is_a_fault():
    assert read_document("? [a, b]\n: c\n").faults == (
        DocumentFault(("?",), "is no key; keys are single words"),
    )


def test_a_mark_in_front_of_the_text_is_ignored():
    assert read_document('\ufeff{"a": 1}').value == {"a": "1"}
    assert read_document("\ufeffa: 1\n").value == {"a": "1"}

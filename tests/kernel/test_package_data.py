"""What comes with the product is found, and is whole."""

from rollout.features.demo.catalog import MAIL_ROOM, build_replay_request, find_example
from rollout.kernel.atomic_files import find_package_data


def test_policies_and_the_mail_rooms_records_are_there():
    assert (find_package_data("config") / "policies" / "smallest.yaml").is_file()
    asked = build_replay_request(find_example(MAIL_ROOM))
    sources = asked.sources
    for path in (asked.policy, sources.predictions, sources.decisions, sources.cases):
        assert path.is_file()
    assert set(asked.trained_until) == {"v1", "v2"}

"""What cases and episodes share: values by key."""

from rollout.kernel.units import group_pairs


def test_keys_and_values_keep_the_order_in_which_they_came():
    groups = group_pairs([("b", 3), ("a", 1), ("b", 2), ("b", 3)])
    assert list(groups.items()) == [("b", [3, 2, 3]), ("a", [1])]


def test_pairs_are_read_once_and_a_missing_key_has_no_group():
    groups = group_pairs((number % 2, number) for number in range(3))
    assert groups == {0: [0, 2], 1: [1]}
    assert 2 not in groups
    assert groups.get(2) is None
    assert group_pairs([]) == {}

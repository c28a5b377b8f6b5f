"""Properties that search a few examples in `fast`, and all of them in `simulation`."""

from functools import wraps
from inspect import Parameter, signature

import pytest
from hypothesis import settings


def examples(give_examples, *, fast, whole):
    """Let a property try `fast` examples in `fast` and `whole` in `simulation`.

    It gets what would stand there: `@examples(given(situations()), fast=5, whole=15)`. The test
    has the parameter `examples`; fixtures of the property are its other parameters.
    """

    def decorate(property_test):
        searched = signature(give_examples(property_test))

        @wraps(property_test)
        def test(examples, **fixtures):
            settings(max_examples=examples)(give_examples(property_test))(**fixtures)

        number = Parameter("examples", Parameter.KEYWORD_ONLY)
        test.__signature__ = searched.replace(parameters=[*searched.parameters.values(), number])
        counts = [fast, pytest.param(whole, marks=pytest.mark.simulation)]
        return pytest.mark.parametrize("examples", counts)(test)

    return decorate

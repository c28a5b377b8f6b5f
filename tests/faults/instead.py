"""Put something else in the place of what the program has, as a mutant does."""

from unittest import mock


def instead(stack, where, name, made):
    """Put `made(original)` in the place of an attribute that must be there."""
    stack.enter_context(mock.patch.object(where, name, made(getattr(where, name))))

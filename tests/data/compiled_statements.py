"""Compiled statements that all databases of a test run share.

SQLAlchemy compiles a statement once for each engine. A program has one engine, a test run has
thousands, all of them set up the same way.
"""

from typing import Any, Final

MAX_STATEMENTS: Final = 5000


class SharedStatements(dict[Any, Any]):
    """Compiled statements by key; a dialect counts by its name, not as the object of an engine."""

    def get(self, key: Any, default: Any = None) -> Any:
        return super().get(_name_dialect(key), default)

    def __setitem__(self, key: Any, compiled: Any) -> None:
        if len(self) >= MAX_STATEMENTS:
            self.clear()
        super().__setitem__(_name_dialect(key), compiled)


def share_statements(patch: Any, session: Any) -> None:
    """Let all databases that open from here on share their compiled statements."""
    create, options = session.create_engine, {"compiled_cache": SharedStatements()}
    patch.setattr(
        session,
        "create_engine",
        lambda *url, **settings: create(*url, execution_options=options, **settings),
    )


def _name_dialect(key: Any) -> Any:
    dialect, *others = key
    return (dialect.name, dialect.paramstyle, *others)

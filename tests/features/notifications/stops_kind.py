"""An example of a kind of notification: `test_kinds.py` adds it to a copy of the program."""

from rollout.engine.decide.permissions import Permission
from rollout.features.notifications.proposal_kinds import (
    MessageText,
    RolloutKind,
    build_path,
    remove_markup,
)


class Stops(RolloutKind):
    """A stop in a rollout that a user may read."""

    name = "stops"
    description = "Stops, also in quiet hours"
    notices = ("stop",)
    is_urgent = True

    def list_subjects(self, user, since, item, _at):
        """Return the stops in force since the user chose the kind."""
        if not user.caller.has_permission_somewhere(Permission.READ, item.state.rollout.name):
            return []
        stops = item.state.scope.stops.values()
        return [("stop", stop.id) for stop in stops if stop.at >= since]

    def build_text(self, _service, _user, notices, news, _at):
        """Return who made the stop."""
        (notice,) = notices
        by = remove_markup(news[0].state.scope.stops[notice.about].by)
        path = build_path("rollouts", notice.rollout)
        return MessageText(f"{notice.rollout}: Stop {notice.about}", "Go on?", f"By {by}.", path)

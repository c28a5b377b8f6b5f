"""An example of a kind of notification: `test_kinds.py` adds it to a copy of the program."""

from rollout.data.access.notification_outbox import Notice
from rollout.engine.decide.permissions import Permission
from rollout.features.notifications.proposal_kinds import (
    MessageText,
    NotificationKind,
    build_path,
    remove_markup,
)


class Stops(NotificationKind):
    """A stop in a rollout that a user may read."""

    name = "stops"
    description = "Stops, also in quiet hours"
    notices = ("stop",)
    is_urgent = True

    def find_notices(self, user, since, news, _at):
        """Yield the stops in force since the user chose the kind."""
        for item in news:
            name = item.state.rollout.name
            if user.caller.has_permission_somewhere(Permission.READ, name):
                for stop in item.state.scope.stops.values():
                    if stop.at >= since:
                        yield Notice(name, "stop", stop.id)

    def build_text(self, _service, _user, notices, news, _at):
        """Return who made the stop."""
        (notice,) = notices
        by = remove_markup(news[0].state.scope.stops[notice.about].by)
        path = build_path("rollouts", notice.rollout)
        return MessageText(f"{notice.rollout}: Stop {notice.about}", "Go on?", f"By {by}.", path)

"""Users of the bears rollout who chose notifications, and a place where messages arrive."""

from rollout.data.access.notification_outbox import NotificationTimes
from rollout.data.access.users import Users
from rollout.engine.decide.permissions import AssignedRole, Caller
from rollout.features.access import users
from rollout.features.notifications import settings
from rollout.features.notifications.kinds import KINDS
from rollout.features.notifications.settings import NotificationPlanner, send_due_notifications
from rollout.kernel.channels import Channels
from rollout.live.service import build_service
from tests.api.bears import founded
from tests.data.snapshots import filled_once
from tests.factories import NOON

ADMIN = Caller("ada", role_assignments=(AssignedRole("admin"),))
TOKEN = "hunter2-token"  # noqa: S105 - a secret of tests
URLS = {
    "mail": f"mailto://bo:{TOKEN}@mail.example.org?to={{address}}",
    "hook": f"json://hooks.example.org/{TOKEN}/{{address}}",
    "rangers": f"json://rangers.example.org/{TOKEN}",
}
PUBLIC_URL = "https://rollout.example"
AT_CREEK = AssignedRole("operator", "bears", "creek")
ROLES = {
    "olga": (AT_CREEK,),
    "lars": (AssignedRole("operator", "bears", "lake"),),
    "rita": (AT_CREEK, AssignedRole("reviewer", "bears", "creek")),
    "vic": (AssignedRole("viewer", "bears", "creek"),),
    "nora": (AssignedRole("reviewer", "bears", "creek"),),
}


class Mailroom:
    """Keeps the messages given to it, or fails for addresses in `faults`."""

    def __init__(self):
        self.messages, self.faults = [], {}

    def __call__(self, message):
        fault = next((text for part, text in self.faults.items() if part in message.url), "")
        if not fault:
            self.messages.append(message)
        return fault


@filled_once
def add_users(database):
    """Make the rollout and its users."""
    founded(database, NOON)
    users.create_first_admin(database, "ada", at=NOON)
    for name, roles in ROLES.items():
        users.create_account(database, ADMIN, name, at=NOON, role_assignments=roles)


def build_notified_service(database, door, clock, urls=None):
    """Return a replica with personal channels."""
    channels = Channels(URLS if urls is None else urls, PUBLIC_URL)
    return build_service(database, door, clock, entropy=bytes, channels=channels)


def build_user(name):
    """Return a user as caller."""
    return Caller(name, role_assignments=ROLES.get(name, ()))


def choose(service, name, kinds=tuple(KINDS), channel="mail", quiet=None):
    """Have a user choose a channel, and confirm it as if the code had arrived."""
    caller = build_user(name)
    address = f"{name}@example.org" if channel == "mail" else name
    settings.save_notification_channel(service, caller, channel, address, kinds)
    settings.confirm_notification_channel(service, caller, channel, "00000000")
    if quiet is not None:
        settings.save_notification_times(service, caller, NotificationTimes("UTC", *quiet))


def run_pass(service, mailroom):
    """Queue and send once; return the new messages as pairs of receiver and subject."""
    count = len(mailroom.messages)
    NotificationPlanner(service).queue_notifications(service.clock.now())
    send_due_notifications(service, mailroom)
    return [
        (message.url.rpartition("=")[2].partition("%40")[0].rpartition("/")[2], message.title)
        for message in mailroom.messages[count:]
    ]


def find_user(database, name):
    """Return a stored user."""
    with database.begin_read() as transaction:
        return Users(transaction).find(name)

"""What a copy in which records have personal fields does with them, as JSON."""

from api.records.case_text import list_further_fields
from rollout.data.database.rollouts import Rollouts
from rollout.data.erasure.user_data import UserData
from rollout.engine.records.records import Case, Outcome
from rollout.features.erasure.erasure import erase_name
from tests.engine.records.device_story import CASE, DECISION, asking, print_story, send
from tests.factories import NOON
from tests.features.erasure.test_name_erasure import REQUEST
from tests.features.erasure.traces import find_traces

OUTCOME = {"kind": "outcome", "key": "c1", "at": "2027-05-01T12:00Z"}
SENT = (
    CASE | {"comment": "ana was here"},
    DECISION | {"reviewer": "ana", "helper": "bo"},
    DECISION | {"reviewer": "bo", "helper": "ana"},
    OUTCOME | {"answers": {"parcel": "sound"}, "remark": "ana said so", "reporter": "ana"},
)


def export_records(database, name):
    with database.begin_read() as transaction:
        rollout = Rollouts(transaction).find("ramps")
        rows = UserData(transaction, name, {name}).iterate_rollout(rollout)
        return [row for row in rows if row["table"] in {"decisions", "outcomes"}]


def tell(database):
    with asking(database) as client:
        sent = [status for status, _ in send(client, *SENT)]
        rows = export_records(database, "ana")
        answer = client.by("viewer").get("/v1/rollouts/ramps/cases/c1").json()
        story = {
            "sent": sent,
            "shown": [answer["case"].get("comment"), answer["outcomes"][0].get("remark")],
            "page": [
                *list_further_fields(
                    Case(key="c1", site="ramp-a", occurred_at=NOON, comment="wet")
                ),
                *list_further_fields(Outcome(key="c1", at=NOON, remark="late")),
            ],
            "exported": [row["table"] for row in rows],
            "others": [row for row in rows if "bo" in row.values()],
            "before": find_traces(database, "ana"),
        }
        erase_name(database, REQUEST, "ana")
        return story | {"after": find_traces(database, "ana")}


if __name__ == "__main__":
    print_story(tell)

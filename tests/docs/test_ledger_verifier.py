"""docs/how-to/verify_ledger.py: small, alone, and it finds what was changed."""

import ast
import json
import re
import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from random import Random

import pytest

from rollout.engine.events import (
    EVENT_TYPES,
    AttemptsBegan,
    ClockCorrected,
    EraBegan,
    Narrowed,
    PolicyApplied,
    ProposalRaised,
    Stopped,
    Suspended,
    VersionFirstUsed,
    VersionRenamed,
    VersionRetired,
    Widened,
)
from rollout.engine.ledger.ledger import Checkpoint, build_row
from rollout.live.checkpoint_keys import CheckpointSigner, create_signing_key
from tests.docs.pages import text_of
from tests.engine.ledger.golden import ACCESS, ROLLOUT
from tests.factories import CREEK, DAY, HOUR, LAKE, NOON, SALTS, eventful
from tests.ledger_verifier import (
    FILE,
    VERIFIER,
    compare_histories,
    read_lines,
    rehash,
    write_ledger,
)

DRIVEN = eventful()
LINES = write_ledger("bear-alarm", DRIVEN.events)
ROWS = [json.loads(line) for line in LINES]
MADE_UP = "Widened cites P-2, which needs operator; has no approval"  # in the golden ledger


def find_row(kind, number=0):
    """Return the place of a row of a kind, from 0."""
    return [place for place, row in enumerate(ROWS) if row["kind"] == kind][number]


@pytest.fixture
def verify(tmp_path, capsys):
    """Verify lines; return the exit code and what was printed."""

    def run(lines, *options, end="\n"):
        path = tmp_path / "ledger.jsonl"
        path.write_bytes("".join(f"{line}\n" for line in lines).removesuffix("\n").encode())
        with path.open("a", encoding="utf-8") as file:
            file.write(end)
        code = VERIFIER.main([str(path), *map(str, options)])
        printed = capsys.readouterr()
        return code, printed.out + printed.err

    return run


# The file


def test_a_stranger_can_read_it_in_an_hour():
    assert len(FILE.read_text("utf-8").splitlines()) <= 620


def test_it_imports_the_standard_library_and_cryptography_alone():
    tree = ast.walk(ast.parse(FILE.read_text("utf-8")))
    names = {alias.name for node in tree if isinstance(node, ast.Import) for alias in node.names}
    tree = ast.walk(ast.parse(FILE.read_text("utf-8")))
    names |= {node.module for node in tree if isinstance(node, ast.ImportFrom)}
    packages = {name.partition(".")[0] for name in names}
    assert packages - sys.stdlib_module_names == {"cryptography"}


def test_it_runs_where_no_package_is_installed(tmp_path):
    path = tmp_path / "ledger.jsonl"
    path.write_text("\n".join(LINES) + "\n", encoding="utf-8")
    words = [sys.executable, "-I", "-S", FILE, path]
    done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"{len(LINES)} rows, head {ROWS[-1]['hash']}" in done.stdout
    assert "no differences" in done.stdout
    more = ["--checkpoint", path, "--public-key", "00" * 32]
    done = subprocess.run([*words, *more], capture_output=True, text=True, check=False)
    assert (done.returncode, "pip install cryptography" in done.stderr) == (2, True)


@pytest.mark.parametrize("kind", sorted(EVENT_TYPES))
def test_it_knows_every_kind_of_a_rollouts_ledger(kind):
    (row,) = read_lines(rehash([{**ROWS[0], "kind": kind, "body": {}}]))
    VERIFIER.RecomputedState([row])  # an unknown kind would raise


# Golden ledgers


@pytest.mark.parametrize(
    ("lines", "policies"),
    [(ROLLOUT, {}), (LINES, DRIVEN.policies)],
    ids=["golden", "driven"],
)
def test_it_says_of_each_row_what_the_program_says(lines, policies):
    compare_histories(lines, policies, allowed=lines is LINES)


V1 = {"at": NOON, "by": "policy", "version": "v1"}
OF_CELL = {**V1, "cell": CREEK}
RENAMED = {"at": NOON + HOUR, "by": "policy", "version": "v1b"}
LOW = Widened(**OF_CELL, to_stage="supervised", until=NOON + DAY, proposal="")
HIGH = Widened(
    **{**OF_CELL, "at": NOON + 2 * HOUR}, to_stage="autonomous", until=NOON + DAY, proposal=""
)
FLOORED = replace(LOW, confidence_floors=("0.9", "0.95"))
LOWERED = replace(FLOORED, at=NOON + HOUR, until=NOON + 2 * DAY, confidence_floors=("0.8", "0.9"))
RAISED = Narrowed(**OF_CELL, from_stage="supervised", to_stage="supervised", confidence_floor="0.9")
SUSPENDED = Suspended(**OF_CELL, guard="latency")
SUSPENDED_LATER = replace(SUSPENDED, at=NOON + 2 * HOUR)
POLICY = {"at": NOON + HOUR, "by": "ana", "number": 1, "policy_hash": "a"}
ONE_ATTEMPT = {
    "years": (2027,),
    "numbers": (1,),
    "releases": (0,),
    "shares": ("0.3827933839994266",),
}
BEGAN = AttemptsBegan(at=NOON, by="policy", cells=(CREEK,), versions=("v1",), **ONE_ATTEMPT)
ALARM = Narrowed(**OF_CELL, from_stage="shadow", to_stage="shadow", restart=True)
LATE_ALARM = replace(ALARM, at=NOON + 3 * HOUR, slot=NOON + HOUR / 2, from_stage="supervised")
RARE = {
    "a restarted attempt gets the next number": [
        BEGAN, ALARM, replace(BEGAN, numbers=(2,), shares=("0.13533789880967032",)),
    ],
    "a planned year has equal shares": [replace(BEGAN, releases=(4,), shares=("0.2",))],
    "a renamed cell goes on in its year": [
        BEGAN, PolicyApplied(**POLICY, cleared=(CREEK,), renamed=(LAKE,), former=(CREEK,)),
    ],
    "suspensions end with the last grant": [
        LOW, SUSPENDED, Narrowed(**OF_CELL, from_stage="supervised", to_stage="shadow"),
    ],
    "suspensions stay with a lower grant": [
        LOW, HIGH, SUSPENDED, Narrowed(**OF_CELL, from_stage="autonomous", to_stage="supervised"),
    ],
    "a suspension without a grant stays": [
        SUSPENDED, Narrowed(**OF_CELL, from_stage="shadow", to_stage="shadow"),
    ],
    "a grant of the skipped time ends": [
        LOW, HIGH,
        ClockCorrected(at=NOON + HOUR, by="policy", previous_time=NOON + 2 * HOUR),
        VersionFirstUsed(**{**V1, "at": NOON, "version": "v2"}),
    ],
    "an attempt of the skipped time began by the correction": [
        LOW,
        Narrowed(
            **{**OF_CELL, "at": NOON + 2 * HOUR}, from_stage="supervised", to_stage="shadow",
            restart=True,
        ),
        ClockCorrected(at=NOON + HOUR, by="policy", previous_time=NOON + 2 * HOUR),
    ],
    "an operator's next attempt leaves the grants": [
        BEGAN, LOW, Narrowed(
            **OF_CELL, from_stage="supervised", to_stage="supervised", restart=True
        ),
    ],
    "a restarted cell keeps its grants": [
        BEGAN, LOW, SUSPENDED, PolicyApplied(**POLICY, restarted=(CREEK, LAKE)),
    ],
    "a cleared cell loses them": [
        LOW, SUSPENDED, PolicyApplied(**POLICY, cleared=(CREEK,), restarted=(CREEK, LAKE)),
    ],
    "a stopped cell stays stopped under its new name": [
        Stopped(at=NOON, by="ana", stop="S-1", cells=(CREEK,)),
        PolicyApplied(**POLICY, cleared=(CREEK,), renamed=(LAKE,), former=(CREEK,)),
    ],
    "a new name changes nothing": [
        LOW, VersionRenamed(**RENAMED, continues="v1", content="a"), SUSPENDED,
    ],
    "a version is first used once": [VersionFirstUsed(**{**V1, "at": NOON + HOUR}), LOW],
    "a late pass ends an attempt with its slot": [
        LOW, replace(LATE_ALARM, at=NOON + HOUR),
    ],
    "a user's action before a pass ends it later": [
        LOW, SUSPENDED_LATER, LATE_ALARM,
    ],
    "a retired version holds nothing": [LOW, VersionRetired(**V1), SUSPENDED],
    "a lower confidence floor gives the same stage once more": [FLOORED, LOWERED],
}  # fmt: skip


@pytest.mark.parametrize("name", RARE)
def test_it_follows_what_histories_seldom_have(name):
    events = [VersionFirstUsed(**V1), *RARE[name]]
    compare_histories(write_ledger("r", events), {}, allowed=False)


GIVEN_TWICE = "gives supervised where v1 holds shadow, supervised"


@pytest.mark.parametrize(
    ("events", "is_twice"),
    [
        ([FLOORED, LOWERED], False),
        ([FLOORED, LOWERED, RAISED, LOWERED], False),
        ([FLOORED, FLOORED], True),
        ([LOWERED, FLOORED], True),
        ([FLOORED, LOWERED, RAISED, FLOORED], True),
        ([FLOORED, LOW], True),
        ([LOW, LOWERED], True),
        ([FLOORED, HIGH, LOWERED], True),
    ],
)
def test_a_stage_is_given_again_at_a_lower_confidence_floor_alone(events, is_twice):
    lines = write_ledger("r", [VersionFirstUsed(**V1), *events])
    found = [d for d in VERIFIER.RecomputedState(read_lines(lines)).differences if GIVEN_TWICE in d]
    assert bool(found) == is_twice


@pytest.mark.parametrize("floors", [("0.8", "0.95"), ("0.9",), ()])
def test_a_widening_opens_the_confidence_floors_that_were_proposed(floors):
    raised = ProposalRaised(
        **OF_CELL, proposal="P-1", kind="widening", expires_at=NOON + DAY, needs=(),
        evidence_hash="", to_stage="supervised", gate_hash="", confidence_floor="0.9",
        stricter_floors=("0.95",),
    )  # fmt: skip
    for own, is_other in ((("0.9", "0.95"), False), (floors, True)):
        opened = replace(FLOORED, proposal="P-1", confidence_floors=own)
        lines = write_ledger("r", [VersionFirstUsed(**V1), raised, opened])
        found = [d for d in VERIFIER.RecomputedState(read_lines(lines)).differences if "row 3" in d]
        problem = f"row 3: Widened opens the floors {list(own)}, not those of P-1"
        assert found == [problem] * is_other


@pytest.mark.parametrize("name", [{"version": "v1"}, {"content": "b"}, {"continues": "v9"}])
def test_a_name_of_another_version_or_content_is_a_difference(name):
    fields = {**RENAMED, "continues": "v1", "content": "a"} | name
    lines = write_ledger("r", [VersionFirstUsed(**V1, content="a"), VersionRenamed(**fields)])
    (difference,) = VERIFIER.RecomputedState(read_lines(lines)).differences
    assert difference.startswith("row 2: VersionRenamed ")


@pytest.mark.parametrize(
    ("events", "problem"),
    [
        ([replace(BEGAN, numbers=(2,))], "the number 2 of 2027"),
        ([BEGAN, replace(BEGAN, years=(2028,))], "the number 1 of 2028"),
        ([BEGAN, ALARM, BEGAN], "the number 1 of 2027"),
        ([BEGAN, ALARM, replace(BEGAN, numbers=(2,), releases=(1,))], "changes the shares of 2027"),
        ([replace(BEGAN, shares=("0.5",))], "the share 0.5"),
    ],
)
def test_an_attempt_with_more_risk_than_its_number_has_is_named(events, problem):
    lines = write_ledger("r", [VersionFirstUsed(**V1), *events])
    state = compare_histories(lines, {}, allowed=False)
    assert any(problem in difference for difference in state.differences), state.differences


def test_it_verifies_the_access_ledger_without_a_state(verify):
    code, printed = verify(ACCESS)
    assert (code, printed.count("\n")) == (0, 3)


def test_it_names_each_row_of_the_golden_ledger_that_nobody_approved(verify):
    code, printed = verify(ROLLOUT)
    assert code == 1
    assert f"row 10: {MADE_UP}" in text_of("docs/how-to/audit.md")
    assert f"row 10: {MADE_UP}" in printed
    assert (
        "row 37: ClockCorrected corrects 2026-03-02T15:50:00+00:00, which nobody confirmed"
        in printed
    )
    assert "row 8:" not in printed  # approved by an operator and an approver


# Rows that were changed


def rehash_last(lines, **values):
    """Return the last row alone, changed, under the hash of what it now says."""
    row = {**json.loads(lines[-1]), **values}
    texts, _ = row.pop("texts", None), row.pop("hash")
    content = f"rollout-ledger-1\n{VERIFIER.format_canonical(row)}"
    row["hash"] = VERIFIER.sha256(content.encode()).hexdigest()
    return [VERIFIER.format_canonical({**row, **({"texts": texts} if texts else {})})]


def swap(rows, place):
    return [*rows[:place], rows[place + 1], rows[place], *rows[place + 2 :]]


@pytest.mark.parametrize(
    ("lines", "row"),
    [
        ([*LINES[:9], LINES[9].replace('"at":1', '"at":2'), *LINES[10:]], 10),
        ([*LINES[:9], *LINES[10:]], 10),
        ([*LINES[:9], LINES[8], *LINES[9:]], 10),
        (swap(LINES, 9), 10),
        ([*LINES, LINES[-1]], len(LINES) + 1),
        ([*LINES[:-1], LINES[-1][:40]], len(LINES)),
        ([*LINES[:4], LINES[4].replace('","', '", "', 1), *LINES[5:]], 5),
        ([*LINES[:4], LINES[4].replace('{"', '{"at":1,"', 1), *LINES[5:]], 5),
        ([*LINES[:4], LINES[4].replace('"revision":5', '"revision":5.0'), *LINES[5:]], 5),
        ([*LINES[:4], "[]", *LINES[5:]], 5),
        ([*LINES[:4], "\0", *LINES[5:]], 5),
        ([*LINES[:-1], *rehash_last(LINES, previous="0" * 64)], len(LINES)),
        ([*LINES[:-1], *rehash_last(LINES, rollout="other")], len(LINES)),
        ([*LINES[:-1], *rehash_last(LINES, revision=999)], len(LINES)),
        ([*LINES[:-1], *rehash_last(LINES, at="noon")], len(LINES)),
        ([*LINES[:-1], *rehash_last(LINES, body={"share": 0.5})], len(LINES)),
        ([*ROLLOUT, *LINES], 40),
    ],
    ids=[
        "edited", "deleted", "doubled", "swapped", "repeated at the end", "cut inside", "spaced",
        "a key twice", "a float", "no object", "no text", "another before", "another rollout",
        "another revision", "a time of text", "half", "two ledgers",
    ],
)  # fmt: skip
def test_a_change_of_the_rows_is_found_where_it_begins(verify, lines, row):
    code, printed = verify(lines)
    assert code == 1
    assert f"  row {row}: " in printed


def test_any_changed_byte_is_found(verify):
    draw, text = Random(7), "\n".join(LINES)  # noqa: S311 - any places will do
    for _ in range(40):
        place = draw.randrange(len(text))
        other = draw.choice('09afz{}",: \n')
        if other == text[place]:
            continue
        changed = text[:place] + other + text[place + 1 :]
        assert verify(changed.split("\n"))[0] in {1, 2}, (place, other)


def test_a_text_that_was_changed_or_added_is_found_and_an_erased_one_is_counted(verify):
    place = next(place for place, row in enumerate(ROWS) if row.get("texts"))
    row, name = ROWS[place], next(iter(ROWS[place]["texts"]))
    line = LINES[place].replace(row["texts"][name]["salt"], "00" * 16)
    code, printed = verify([*LINES[:place], line, *LINES[place + 1 :]])
    assert (code, f"row {place + 1}: its text {name} is not" in printed) == (1, True)
    bare = VERIFIER.format_canonical({key: row[key] for key in row if key != "texts"})
    code, printed = verify([*LINES[:place], bare, *LINES[place + 1 :]])
    assert (code, "1 texts erased" in printed) == (0, True)


# Ends that were cut, and ledgers that were rewritten


def test_rows_removed_at_the_end_are_found_by_a_head_alone(verify):
    head = ROWS[-1]["hash"]
    assert verify(LINES, "--head", head)[0] == 0
    assert verify(LINES[:-1])[0] == 0
    code, printed = verify(LINES[:-1], "--head", head)
    assert (code, f"has the hash {head}" in printed) == (1, True)


@pytest.fixture
def signed(tmp_path):
    """Return a file of checkpoints and the public key that signed them."""
    key, path = tmp_path / "key", tmp_path / "checkpoints.jsonl"
    create_signing_key(key)
    signer = CheckpointSigner(key)
    heads = [("bear-alarm", 12, ROWS[11]["hash"]), ("bear-alarm", len(ROWS), ROWS[-1]["hash"])]
    heads += [(":access", 3, "ab" * 32)]
    lines = [signer.sign(Checkpoint(*head, NOON)).format() for head in heads]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path, signer.public_key


def options_of(signed):
    return "--checkpoint", signed[0], "--public-key", signed[1]


def test_signed_heads_are_found(verify, signed):
    code, printed = verify(LINES, *options_of(signed))
    assert (code, "2 signed heads found" in printed) == (0, True)


def test_signed_heads_show_a_cut_end_and_a_rewritten_ledger(verify, signed):
    code, printed = verify(LINES[:-1], *options_of(signed))
    assert (code, f"row {len(LINES)}: the checkpoint of 2027-06-01" in printed) == (1, True)
    rewritten = rehash([{**row, "at": row["at"] + 1} for row in ROWS])
    code, printed = verify(rewritten, *options_of(signed))
    assert (code, "row 12: the checkpoint of" in printed) == (1, True)


def test_a_checkpoint_of_another_key_or_ledger_is_found(verify, signed):
    path, _ = signed
    code, printed = verify(LINES, "--checkpoint", path, "--public-key", "11" * 32)
    assert code in {1, 2}
    path.write_text(path.read_text().replace(f'"revision":{len(ROWS)}', '"revision":2'))
    code, printed = verify(LINES, *options_of(signed))
    assert (code, "row 2: the checkpoint of" in printed) == (1, True)
    assert "is not signed by this key" in printed
    path.write_text(path.read_text().splitlines()[-1])
    code, printed = verify(LINES, *options_of(signed))
    assert (code, "no checkpoint is of the ledger bear-alarm" in printed) == (1, True)


def test_checkpoints_are_verified_with_no_other_package_than_cryptography(tmp_path, signed):
    ledger, packages = tmp_path / "ledger.jsonl", tmp_path / "packages"
    ledger.write_text("\n".join(LINES) + "\n", encoding="utf-8")
    packages.mkdir()
    for name in ("cryptography", "cffi", "_cffi_backend"):
        spec = find_spec(name)
        origin = Path(spec.origin).parent if spec.submodule_search_locations else Path(spec.origin)
        (packages / origin.name).symlink_to(origin)
    words = [sys.executable, "-S", "-P", FILE, ledger, *options_of(signed)]
    done = subprocess.run(
        words, capture_output=True, text=True, check=False, env={"PYTHONPATH": str(packages)}
    )
    assert done.returncode == 0, done.stderr
    assert "2 signed heads found" in done.stdout


# Rows that are whole, but were not allowed


def change_body(place, **values):
    """Return the rows with one body changed, all hashes right."""
    row = {**ROWS[place], "body": {**ROWS[place]["body"], **values}}
    return rehash([*ROWS[:place], row, *ROWS[place + 1 :]])


def drop_row(place):
    """Return the rows without one, all hashes right."""
    return rehash([*ROWS[:place], *ROWS[place + 1 :]])


def give_to(place, actor):
    """Return the rows with another actor in one, all hashes right."""
    return rehash([*ROWS[:place], {**ROWS[place], "actor": actor}, *ROWS[place + 1 :]])


def retire(version):
    """Return a row that retires a version; `rehash` gives it its place."""
    return {**ROWS[-1], "kind": "VersionRetired", "body": {"version": version}, "texts": {}}


WIDENED, APPROVED, RAISED = find_row("Widened"), find_row("Approved"), find_row("ProposalRaised")
FORGED = {
    "no approval": (drop_row(APPROVED), "cites P-1, which needs"),
    "one approval twice": (give_to(APPROVED + 1, ROWS[APPROVED]["actor"]), "is the second of"),
    "an approval by the raiser": (give_to(RAISED, ROWS[APPROVED]["actor"]), "who raised P-1"),
    "an approver of no group": (change_body(APPROVED, groups=["x"]), "cites P-1, which needs"),
    "other readings": (change_body(RAISED, readings=[]), "evidence hash"),
    "other evidence approved": (change_body(APPROVED, evidence_hash="0" * 64), "other evidence"),
    "no proposal": (change_body(WIDENED, proposal=""), "cites the proposal ''"),
    "a closed proposal": (change_body(find_row("Widened", 1), proposal="P-1"), "which is closed"),
    "an expired proposal": (change_body(RAISED, expires_at=1), "which expired 1970"),
    "another cell": (change_body(WIDENED, site="lake"), "is not what P-1 proposes"),
    "a higher stage": (change_body(WIDENED, to_stage="autonomous"), "is not what P-1 proposes"),
    "a stop that never was": (
        drop_row(find_row("Stopped")), "names what no row before has: 'S-32'",
    ),
    "a resume of nobody": (drop_row(find_row("Resumed") - 1), "Resumed cites P-"),
    "a looser policy": (
        change_body(0, loosens=[{"kind": "observe", "values": {}}]), "loosens without a proposal",
    ),
    "another policy": (
        change_body(find_row("PolicyApplied", 2), policy_hash="0" * 64), "which proposes policy",
    ),
    "a policy left out": (drop_row(find_row("PolicyApplied", 1)), "has the number 3 after 1"),
    "a narrowing from elsewhere": (
        change_body(find_row("Narrowed"), from_stage="supervised"), "was the highest",
    ),
    "a takeover of nothing": (
        change_body(find_row("TakenOver"), replaced_version="v2"), "gives a grant where",
    ),
    "a grant ended early": (change_body(find_row("GrantExpired"), until=1), "does not end then"),
    "a version unheard of": (drop_row(1), "names what no row before has"),
    "a stage given twice": (
        rehash([*ROWS[: WIDENED + 1], ROWS[WIDENED]]), "holds shadow, supervised",
    ),
    "a grant of a retired version": (
        rehash([*ROWS[:WIDENED], retire("v1"), *ROWS[WIDENED:]]), "changes what is retired",
    ),
    "a widening while stopped": (
        rehash([
            *ROWS[:WIDENED], {**ROWS[find_row("Stopped")], "texts": {}}, *ROWS[WIDENED:],
        ]), "changes what is stopped by",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FORGED)
def test_a_row_that_nothing_before_allows_is_named(verify, name):
    lines, problem = FORGED[name]
    code, printed = verify(lines)
    assert code == 1
    assert problem in printed, printed
    assert "  row " in printed


def test_an_era_that_is_not_new_is_named(verify):
    again = [EraBegan(at=DRIVEN.events[-1].at, by="ana", era=2, reason="") for _ in range(2)]
    code, printed = verify(write_ledger("bear-alarm", [*DRIVEN.events, *again]))
    assert (code, f"row {len(LINES) + 2}: EraBegan begins era 2 in era 2" in printed) == (1, True)
    assert "era 2\n" in printed


# Input that can't be read, and options


def test_what_is_no_ledger_has_a_code_of_its_own(verify, tmp_path, capsys):
    assert verify(["{}"])[0] == 2
    assert verify([""], end="")[0] == 2
    assert VERIFIER.main([str(tmp_path / "missing")]) == 2
    later = rehash([*ROWS, {**ROWS[-1], "kind": "Doubled"}])
    code, printed = verify(later)
    assert (code, "older than Doubled" in printed) == (2, True)
    assert verify(LINES, "--checkpoint", FILE, "--public-key", "11" * 32)[0] == 2


@pytest.mark.parametrize("damaged", ["{", "[1]", "7", '"x"', "null", '{"a":1.5}', "{}", "\udcff"])
def test_a_damaged_row_is_named_in_plain_words(verify, tmp_path, capsys, damaged):
    path = tmp_path / "ledger.jsonl"
    path.write_bytes(f"{LINES[0]}\n{damaged}\n".encode(errors="surrogateescape"))
    assert VERIFIER.main([str(path)]) == 1
    printed = capsys.readouterr().out
    assert "row 2: it is damaged, or is no row of a ledger" in printed
    assert not re.search(r"\w+Error|Expecting|invalid literal", printed)


def test_an_instant_needs_an_offset_and_a_revision_a_row(verify):
    assert verify(LINES, "--at", "2027-06-01T12:00:00")[0] == 2
    code, printed = verify(LINES, "--revision", "999")
    assert (code, "row 999: is not there" in printed) == (1, True)
    with pytest.raises(SystemExit):
        verify(LINES, "--head")


def state_of(verify, *options):
    return json.loads(verify(LINES, "--json", *options)[1])


def test_it_shows_the_state_after_a_row_and_at_an_instant(verify):
    widened = ROWS[find_row("Widened")]
    before = state_of(verify, "--revision", widened["revision"] - 1)
    after = state_of(verify, "--revision", widened["revision"])
    (cell,) = [cell for cell in after["cells"] if cell["version"] == "v1"]
    assert [c["stage"] for c in before["cells"] if c["version"] == "v1"] == ["shadow"]
    assert (cell["site"], cell["stage"], cell["attempt"]) == (CREEK.site, "supervised", 1)
    assert cell["grants"] == [
        {
            "stage": "supervised",
            "since": widened["at"],
            "until": widened["body"]["until"],
            "proposal": "P-1",
            "lapsed": False,
        }
    ]
    ended = VERIFIER.format_instant(widened["body"]["until"])
    (later,) = [
        cell
        for cell in state_of(verify, "--revision", widened["revision"], "--at", ended)["cells"]
        if cell["version"] == "v1"
    ]
    assert (later["stage"], later["grants"][0]["lapsed"]) == ("shadow", True)


def test_an_instant_chooses_the_last_row_before_it(verify):
    widened = ROWS[find_row("Widened")]
    shown = state_of(verify, "--at", VERIFIER.format_instant(widened["at"]))
    assert shown["revision"] >= widened["revision"]
    assert ROWS[shown["revision"]]["at"] > widened["at"]
    assert state_of(verify, "--at", (NOON - DAY).isoformat())["cells"] == []


def test_it_names_the_last_approvals(verify):
    approvals = [row for row in ROWS if row["kind"] == "Approved"][-5:]
    shown = state_of(verify)["last_approvals"]
    assert [(a["revision"], a["by"]) for a in shown] == [
        (row["revision"], row["actor"]) for row in approvals
    ]
    printed = verify(LINES)[1]
    last = approvals[-1]
    assert f"approval in row {last['revision']}: {last['actor']} (" in printed
    assert "widening creek · day v2 " in printed


def test_what_a_forger_typed_moves_no_cursor(verify):
    row = {**ROWS[1], "body": {"version": "v1\x1b[2J"}}
    code, printed = verify(rehash([ROWS[0], row]))
    assert "\x1b" not in printed
    later = build_row("r\x1b[2J", 1, DRIVEN.events[0], "", salts=SALTS)
    code, printed = verify([later.format()])
    assert (code, printed.startswith("r\\x1b[2J: 1 rows")) == (0, True)

"""Scenes of a rollout's life, each told to its end: what a random search may meet too seldom.

Each takes a `Life` that has just begun. Which of them each broken program fails in stands in
`live_mutants`.
"""

from rollout.data.tables.record_tables import encode_instant
from tests.promises.live_world import HOUR, SECOND, SITES

DECIDES = "a model decides at autonomous"


def _code(answer):
    """Return the code of a refusal, None of what was let through."""
    return answer.json().get("code")


def widened(life):
    """Two people widen on the hash that was shown, and nobody else can."""
    life.climb(0)
    world = life.world
    (proposal, evidence, kind), *_ = world.open_proposals()
    assert kind == "widening"
    for who, cited, code in (
        ("bo", "0" * 64, "evidence-changed"),
        ("bot", evidence, "service-account-key"),
        ("far", evidence, "unknown-rollout"),
        ("cy", evidence, "not-eligible"),
    ):
        assert _code(world.approve(who, proposal, cited)) == code
    for _ in range(2):  # one person twice is one person
        assert world.approve("bo", proposal, evidence).status_code == 200
    life.traffic(1, "good", "v1", True)
    assert life.checks.seen["Widened"] == 0
    assert world.approve("dan", proposal, evidence).status_code == 200
    life.traffic(2, "good", "v1", True)
    assert life.checks.seen["Widened"] == 1


def turned(life):
    """What was approved is not applied once the evidence has turned."""
    life.climb(0)
    life.world.approve_all()
    world = life.world
    world.plain = False  # these verdicts come for cases of earlier slots, as if from far away
    cases = [world.new_case(site, "v1") for site in SITES for _ in range(40)]
    early = world.now - 50 * 60 * SECOND
    world.send([world.case(case, early) for case in cases])
    world.send([world.prediction(case, early) for case in cases])
    world.send([world.verdict(case, "none", at=early + SECOND) for case in cases])
    world.clock.advance(2 * HOUR)  # downtime: what waits is due, and one pass sees all of it
    world.tick()
    life.checks.follow()
    assert life.checks.seen["Widened"] == 0
    assert life.checks.seen["ProposalVoided"] == 2


def raised_by_oneself(life):
    """Nobody approves their own policy edit, nor the end of a stop that they asked for."""
    life.climb(0)
    world = life.world
    world.approve_all()
    life.traffic(1, "good", "v1", True)
    made = world.put_policy("looser").json()
    assert made["outcome"] == "proposed"
    assert _code(world.approve("zoe", made["proposal"], made["evidence_hash"])) == "own-proposal"
    (stop,) = (stop_body["id"] for stop_body in world.stop("bo", ["s0"]).json()["active_stops"])
    proposal = world.resume("bo", stop).json()
    assert (
        _code(world.approve("bo", proposal["proposal"], proposal["evidence_hash"]))
        == "own-proposal"
    )


def stopped(life):
    """A stop holds on both replicas, in the middle of traffic, until two people end it."""
    life.climb(1)
    world = life.world
    life.promises_hold()
    life.stop("vic", SITES, False, 0)
    assert life.checks.seen["asked of a stopped cell with grants"] > 0
    world.approve_all()  # what waits is approved, and not applied while it is stopped
    life.traffic(1, "good", "v1", True)
    life.promises_hold()
    (stop,) = life.checks.slow.stops
    world.resume("bo", stop)
    for proposal, evidence, kind in world.open_proposals():
        if kind == "resume":
            for who in ("dan", "zoe"):
                world.approve(who, proposal, evidence)
    life.traffic(1, "good", "v1", True)
    assert life.checks.seen["Resumed"] == 1
    life.promises_hold()
    life.narrow("bo", SITES, "shadow", 1)
    assert life.checks.seen["Narrowed"] >= 1


def expired(life):
    """Grants end while no process looks, and give nothing from then on."""
    life.climb(2)
    life.promises_hold()
    assert life.checks.seen[DECIDES] > 0
    life.wait(26 * HOUR)
    life.promises_hold()
    life.wait(7 * HOUR)
    life.promises_hold()
    assert life.checks.seen["asked of an expired grant that no tick has noted"] > 0
    life.wait(26 * HOUR)
    life.promises_hold()
    life.tick(1)  # one pass for all that was missed
    life.promises_hold()
    assert life.checks.seen["GrantExpired"] >= 2


def _granted(life):
    """Let a question be asked that a model decides; return its place."""
    for _ in range(20):
        life.ask("s0", "v1", 1, True)
        if life.answers:
            return
    raise AssertionError("no model ever decided")


def acted(life):
    """Acts of the model with permits that are valid, foreign, forged, late, or missing."""
    life.climb(2)
    for how in ("valid", "foreign", "none", "forged", "other"):
        _granted(life)
        life.act(how, 0)
    for how in ("stopped", "late"):
        _granted(life)
        life.act(how, 0)
        life.promises_hold()
        if how == "stopped":
            (stop,) = life.checks.slow.stops
            life.world.resume("bo", stop)
            life.world.approve_all()
            life.world.approve("zoe", *next(p[:2] for p in life.world.open_proposals()))
            life.traffic(1, "good", "v1", True)
    evidence_seen = life.checks.seen
    assert evidence_seen["an action was unauthorized"] == 5
    assert evidence_seen["an action was authorized_within_lease"] == 1
    assert evidence_seen["an action was authorized"] == 1


def narrow_after_answer(life):
    """An answer outlives its scope by its lease alone."""
    life.climb(2)
    _granted(life)
    _granted(life)
    life.world.clock.advance(2 * HOUR)
    life.world.stop("bo", SITES)
    life.act("valid", 0)
    assert life.checks.seen["an action was unauthorized"] == 1


def offline(life):
    """A client decides by its copy for as long as the lease, and no longer."""
    life.climb(2)
    for seconds, stopped in ((0, False), (120, False), (30, True)):
        life.offline(seconds * SECOND, stopped)
    assert life.checks.seen["offline a model decides"] > 0


def askew(life):
    """A replica whose clock is off leaves all to people; the other goes on."""
    life.climb(2)
    life.clock_goes_wrong(6)
    life.promises_hold()
    life.clock_goes_wrong(0)
    life.ask_oddly(1, 6)
    life.promises_hold()


def judged(life):
    """People judge at the desk, look around, and see nothing of what they judge blind."""
    life.climb(1)
    for _ in range(3):
        life.ask("s0", "v1", 1, True)
    for n in range(8):
        life.look_around("vic", n)
    for who in ("ann", "ben", "vic"):
        life.claim(who, None, 3)
        life.look_around(who, 0)
        for label in ("bear", "none", "bear"):
            life.judge(who, label, "blind", None)
        life.promises_hold()
    assert life.checks.seen["assisted tasks"] > 0
    assert life.checks.seen["blind tasks"] > 0
    assert life.checks.seen["verdicts of who had seen the prediction"] > 0


def late(life):
    """A pass 40 minutes after its slot grants nothing backwards, and accuses nobody."""
    life.climb(0)
    world = life.world
    for _ in range(2):
        world.approve_all()
        world.to_next_slot()
        passed_at = _pass_late(life)
        widened_at = [row[1] for row in world.rows if row[2] == "Widened"]
        assert widened_at[-1] == encode_instant(passed_at)
        life.traffic(3, "good", "v1", True)
    for _ in range(4):
        life.send_hour("bad", "v1", True)
        world.to_next_slot()
        life.answers.clear()
        _pass_late(life, _granted)
        if life.checks.seen["Narrowed"]:
            break
    case, answer, asked_at = life.answers[-1]
    assert life.checks.rung(case.site, "v1", world.now) < 2
    life.record_action(case, answer, asked_at)


def _pass_late(life, ask=lambda life: life.promises_hold()):
    """Tick 40 minutes from now, look at answers before and after, and return the pass's time."""
    for _ in range(2):
        ask(life)
        life.world.clock.advance(20 * 60 * SECOND)
    life.promises_hold()
    passed_at = life.world.now
    life.tick(0)
    life.promises_hold()
    return passed_at


def unwatched(life):
    """A model whose audits nobody answers loses its grant, and so does a silent site's."""
    life.climb(2)
    for _ in range(5):
        life.traffic(1, "good", "v1", False)
        if life.checks.slow.grants["s0", "always", "v1"][1:] == []:
            break
    life.promises_hold()
    alarms = [r[4]["guard"] for r in life.world.rows if r[2] == "Narrowed" and r[4].get("guard")]
    assert any("unaudited" in guard for guard in alarms)


def silent(life):
    """A site whose signs of life stop is withheld."""
    life.climb(1)
    life.quiet_hours(5)
    for _ in range(12):
        life.world.to_next_slot()
        life.world.tick()
    life.promises_hold()
    assert life.checks.seen["Suspended"] == 1
    assert life.checks.seen["asked of a suspended cell"] > 0


def wrong(life):
    """A model that goes wrong is narrowed by itself."""
    life.climb(2)
    life.traffic(3, "bad", "v1", True)
    life.promises_hold()
    assert life.checks.seen["Narrowed"] >= 2
    assert not any(life.checks.rung(site, "v1", life.world.now) > 1 for site in SITES)


def replaced(life):
    """A challenger proves itself in shadow and takes over; a grant is renewed."""
    life.climb(1)
    for _ in range(4):
        life.traffic(2, "good", "v2", True, other_version="v1")  # which is narrowed if it is silent
        life.world.approve_all()
    assert life.checks.seen["TakenOver"] >= 1
    for _ in range(12):
        life.traffic(3, "good", "v2", True, other_version="v1")
        life.world.approve_all()
    life.promises_hold()
    assert life.checks.seen["Renewed"] >= 1


def proposed_by_hand(life):
    """A person proposes a renewal before a tick does; it names the same senders."""
    life.climb(1)
    for proposal, _, _ in life.world.open_proposals():
        life.world.reject("bo", proposal)
    life.wait(33 * HOUR)  # the last fifth of the grant, and the quiet after a rejection is over
    life.raise_one("renewal", "s0", "v1", "supervised")
    assert life.checks.seen["renewal raised by hand"] == 1
    seen_before = life.checks.seen["sources of a proposal"]
    life.checks.follow()
    assert life.checks.seen["sources of a proposal"] == seen_before + 1


SCENES = (
    widened,
    turned,
    raised_by_oneself,
    stopped,
    expired,
    acted,
    narrow_after_answer,
    offline,
    late,
    askew,
    judged,
    unwatched,
    silent,
    wrong,
    replaced,
    proposed_by_hand,
)

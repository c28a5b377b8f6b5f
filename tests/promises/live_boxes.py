"""What boxes do: records, questions, offline spells, actions."""

from datetime import timedelta

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from rollout.client.leases import compute_time_left
from rollout.client.local_scope import parse_snapshot
from rollout.core.scope.assignment import CaseQuestion
from rollout.formats.policy.reader import parse_policy
from tests.promises.live_checks import draw_of
from tests.promises.live_lots import BAD, GOOD, replicas, versions
from tests.promises.live_world import (
    HOUR,
    LABELS,
    MINUTE,
    SECOND,
    SITES,
)


class Boxes(RuleBasedStateMachine):
    """The steps of boxes; what they use is made by `live_machine.Life`."""

    # Records

    @rule(
        hours=st.integers(1, 3),
        quality=st.sampled_from([GOOD, GOOD, GOOD, BAD]),
        version=versions,
        judged=st.sampled_from([True, True, True, False]),
        approving=st.booleans(),
    )
    def traffic(self, hours, quality, version, judged, approving=False):
        """Let some hours pass with cases that come in and people who judge them, each ticked."""
        for _ in range(hours):
            if approving:
                self.world.approve_all()
            self.world.settle()
            said = [self._new(site, version, n) for site in SITES for n in range(14)]
            world, items = self.world, []
            for one in said:
                items += [world.case(one), world.prediction(one)]
            world.send(items)
            world.clock.advance(10 * MINUTE)
            if judged:
                world.send([v for one in said if (v := self._verdict(one, quality))])
            self.checks.seen[f"records of a {quality} {version}"] += len(items)
            world.to_next_slot()
            world.clock.advance(SECOND)
            world.tick()
            self.checks.follow()

    def _new(self, site, version, n):
        return self.world.new_case(site, version, LABELS[n % 3 == 0])

    def _verdict(self, one, quality):
        """Return what people say who saw nothing, where somebody is asked to judge blind."""
        rung = self.checks.rung(one.site, one.version, self.world.now)
        stage = self.checks.slow.policy.stages[rung - 1] if rung else None
        seen = stage is None or draw_of(one.key) < stage.blind + (1 - stage.blind) * (
            stage.audit or 0
        )
        wrong = {"bear": "none", "none": "bear"}
        label = one.label if quality == GOOD else wrong[one.label]
        reviewer = "rae" if self.world.numbers % 2 else "sol"
        return self.world.verdict(one, label, reviewer) if seen else None

    @rule(site=st.sampled_from([*SITES, "s9"]), how=st.integers(0, 4), version=versions)
    def odd_records(self, site, how, version):
        """Send twice, otherwise, in the wrong order, late."""
        world = self.world
        world.settle()
        one = world.new_case(site, version)
        items = [world.case(one), world.prediction(one), world.verdict(one, "bear")]
        if how == 0:
            assert world.send(items) == ["accepted"] * 3
            assert world.send(items) == ["duplicate"] * 3
        elif how == 1:
            world.send(items)
            moved = [{**items[0], "site": "s1" if site == "s0" else "s0"}]
            assert world.send(moved) == ["conflict"]
            assert world.send([world.prediction(one) | {"answers": {"alarm": "none"}}]) == [
                "conflict"
            ]
        elif how == 2:
            assert world.send(items[:0:-1]) == ["accepted"] * 2
            world.clock.advance(3 * MINUTE)
            assert world.send(items[:1]) == ["accepted"]
            world.plain = False  # replay knows no case that came after its own verdict
        elif how == 3:
            world.send([world.case(one, world.now - 30 * HOUR), *items[1:]])
        else:
            sent = world.send([{**items[0], "occurred_at": "2027-06-01T12:00:00"}, items[1]])
            assert sent == ["rejected", "accepted"]
            world.plain = False
        self.checks.seen["odd records"] += 1

    # Questions

    @rule(site=st.sampled_from(SITES), version=versions, replica=replicas, predicted=st.booleans())
    def ask(self, site, version, replica, predicted):
        """Ask who decides, as it is at once: also within the time that a replica may lag."""
        world = self.world
        said = [world.new_case(site, version) for _ in range(6)]
        asked = [world.question(one, predicted=predicted) for one in said]
        answer = world.ask(asked, replica)
        assert answer.status_code == 200, answer.text
        answers = answer.json()["answers"]
        self.checks.answered(asked, answers, doubted=self._off(replica))
        told = zip(said, asked, answers, strict=True)
        self.answers += [(one, a, world.now) for one, _, a in told if a["decider"] == "model"]

    def _off(self, replica):
        world = self.world
        return bool(world.off.get(id(world.databases[replica])))

    @rule(replica=replicas, how=st.integers(0, 6))
    def ask_oddly(self, replica, how):
        """Promise 4: what is unknown, missing, askew or of a chain set back is a person's."""
        world = self.world
        world.settle()
        asked = world.question(world.new_case("s0", "v1"))
        later = (world.now + 6 * MINUTE).isoformat()
        odd = [
            {"site": "s9"},
            {"version": "v9"},
            {"key": ""},
            {"at": None},
            {"at": later},
            {"at": (world.now - HOUR).isoformat()},
            {},
        ][how]
        asked = {k: v for k, v in (asked | odd).items() if v is not None}
        more = {} if how < 6 else {"ledger_head": {"revision": 3, "hash": "gone"}}
        (answer,) = world.ask([asked], replica, **more).json()["answers"]
        assert answer["decider"] == "human"
        if how < 6 and not self._off(replica):
            self.checks.answered([asked], [answer])
        self.checks.seen["odd questions"] += 1

    @rule(off=st.sampled_from([0, 6, -40]))
    def clock_goes_wrong(self, off):
        """Set the second replica's clock; it notices within seconds."""
        world = self.world
        world.off = {id(world.databases[1]): timedelta(seconds=off)} if off else {}
        world.clock.advance(6 * SECOND)

    @rule(span=st.sampled_from([0 * SECOND, 30 * SECOND, 2 * MINUTE, HOUR]), stopped=st.booleans())
    def offline(self, span, stopped):
        """Promise 4: a box decides by a copy of the scope, for as long as its lease."""
        world = self.world
        world.settle()
        told = world.get("box", "/scope")
        assert told.status_code == 200, told.text
        scope, sent = parse_snapshot(told.json(), parse_policy), Reading(world.clock)
        if stopped:
            world.stop("bo", SITES)
        before = world.rows[: scope.head.revision]
        world.clock.advance(span)
        for site in SITES * 4:
            one = world.new_case(site, "v1")
            rest = compute_time_left(scope.leases[site], sent, Reading(world.clock))
            asked = CaseQuestion(site, world.now, "v1", one.key, confidence=one.marker)
            made = scope.decide_assignment(asked, now=world.now, time_left=rest)
            if span >= MINUTE:
                assert made.decider == "human"
            fold = type(self.checks.slow)(self.checks.slow.policies).read(before)
            most = self.checks.expected(fold, world.question(one))
            assert (made.decider == "model") <= (most[0] == "model")
            self.checks.seen[f"offline a {made.decider} decides"] += 1

    # Actions

    @precondition(lambda self: self.answers)
    @rule(
        how=st.sampled_from(["valid", "foreign", "none", "forged", "late", "stopped"]),
        which=st.integers(0, 99),
    )
    def act(self, how, which):
        """Act on an answer; its permission is found afterwards."""
        world = self.world
        one, answer, asked_at = self.answers.pop(which % len(self.answers))
        if how == "late":
            world.clock.advance(2 * MINUTE)
        if how == "stopped":
            world.stop("bo", [one.site])
            world.clock.advance(SECOND)
        world.settle()
        permit = {"none": "", "foreign": "", "forged": answer["permit"][:-1] + "x"}.get(how)
        key = one.key
        if how == "foreign":
            key, permit = world.new_case(one.site, one.version).key, answer["permit"]
        permit = answer["permit"] if permit is None else permit
        world.send([world.case(one) | {"key": key}])
        act = {"kind": "action", "key": key, "lever": "alarm", "action": "ring", "by": "model"}
        act |= {"at": world.now.isoformat(), "version": one.version}
        if permit:
            act["permit"] = permit
        assert world.send([act]) == ["accepted"]
        found = world.get("zoe", f"/cases/{key}").json()["actions"][0]["authorization"]
        assert found == self._permission(how, one, answer, asked_at), (how, found)
        self.checks.seen[f"an action was {found}"] += 1

    def _permission(self, how, one, answer, asked_at):
        if how in {"foreign", "none", "forged"}:
            return "unauthorized"
        world = self.world
        rung = self.checks_now().rung(one.site, one.version, world.now)
        if rung and self.checks.slow.policy.stages[rung - 1].audit:
            return "authorized"
        within = (world.now - asked_at).total_seconds() <= answer["lease"]
        changed = (
            world.rows[answer["revision"]][1] if answer["revision"] < len(world.rows) else None
        )
        fresh = changed is not None and _micros(asked_at) <= changed + 500_000
        return "authorized_within_lease" if within and fresh else "unauthorized"


class Reading:
    """Both clocks of a box, as the service's."""

    def __init__(self, clock):
        self.boot, self.wall = clock.read_boot_clock(), clock.now()


def _micros(at):
    return round(at.timestamp() * 10**6)

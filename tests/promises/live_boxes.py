"""What clients do: records, questions, offline spells, actions."""

from datetime import timedelta

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from rollout.engine.decide.assignment import CaseQuestion
from rollout_client.leases import compute_time_left
from rollout_client.local_scope import parse_snapshot
from tests.client.local_answers import decide_locally
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
    """The steps of clients; what they use is made by `live_machine.Life`."""

    # Records

    @rule(
        hours=st.integers(1, 3),
        quality=st.sampled_from([GOOD, GOOD, GOOD, BAD]),
        version=versions,
        judged=st.sampled_from([True, True, True, False]),
        approving=st.booleans(),
    )
    def traffic(self, hours, quality, version, judged, approving=False, other_version=None):
        """Let some hours pass with cases that come in and people who judge them, each ticked.

        Another version predicts them too.
        """
        for _ in range(hours):
            if approving:
                self.world.approve_all()
            self.send_hour(quality, version, judged, other_version)
            self.world.to_next_slot()
            self.world.clock.advance(SECOND)
            self.world.tick()
            self.checks.follow()

    def send_hour(self, quality, version, judged, other_version=None):
        """Send the cases of an hour, and what people say of them."""
        self.world.settle()
        cases = [self._new(site, version, n) for site in SITES for n in range(14)]
        world, items = self.world, []
        for case in cases:
            items += [world.case(case), world.prediction(case)]
            items += (
                [world.prediction(world.say_beside(case, other_version))] if other_version else []
            )
        world.send(items)
        world.clock.advance(10 * MINUTE)
        if judged:
            world.send([v for case in cases if (v := self._verdict(case, quality))])
        self.checks.seen[f"records of a {quality} {version}"] += len(items)

    def _new(self, site, version, n):
        return self.world.new_case(site, version, LABELS[n % 3 == 0])

    def _verdict(self, case, quality):
        """Return what people say who saw nothing, where somebody is asked to judge blind."""
        rung = self.checks.rung(case.site, case.version, self.world.now)
        stage = self.checks.slow.policy.stages[rung - 1] if rung else None
        is_shown = stage is None or draw_of(case.key) < stage.blind + (1 - stage.blind) * (
            stage.audit or 0
        )
        wrong = {"bear": "none", "none": "bear"}
        label = case.label if quality == GOOD else wrong[case.label]
        reviewer = "rae" if self.world.numbers % 2 else "sol"
        return self.world.verdict(case, label, reviewer) if is_shown else None

    @rule(site=st.sampled_from([*SITES, "s9"]), how=st.integers(0, 4), version=versions)
    def odd_records(self, site, how, version):
        """Send twice, otherwise, in the wrong order, late."""
        world = self.world
        world.settle()
        case = world.new_case(site, version)
        items = [world.case(case), world.prediction(case), world.verdict(case, "bear")]
        if how == 0:
            assert world.send(items) == ["accepted"] * 3
            assert world.send(items) == ["duplicate"] * 3
        elif how == 1:
            world.send(items)
            moved = [{**items[0], "site": "s1" if site == "s0" else "s0"}]
            assert world.send(moved) == ["conflict"]
            assert world.send([world.prediction(case) | {"answers": {"alarm": "none"}}]) == [
                "conflict"
            ]
        elif how == 2:
            assert world.send(items[:0:-1]) == ["accepted"] * 2
            world.clock.advance(3 * MINUTE)
            assert world.send(items[:1]) == ["accepted"]
            world.plain = False  # replay knows no case that came after its own verdict
        elif how == 3:
            world.send([world.case(case, world.now - 30 * HOUR), *items[1:]])
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
        cases = [world.new_case(site, version) for _ in range(6)]
        questions = [world.question(case, predicted=predicted) for case in cases]
        answer = world.ask(questions, replica)
        assert answer.status_code == 200, answer.text
        answers = answer.json()["answers"]
        self.checks.answered(questions, answers, doubted=self._off(replica))
        rows = zip(cases, questions, answers, strict=True)
        self.answers += [(case, a, world.now) for case, _, a in rows if a["decider"] == "model"]

    def _off(self, replica):
        world = self.world
        return bool(world.off.get(id(world.databases[replica])))

    @rule(replica=replicas, how=st.integers(0, 6))
    def ask_oddly(self, replica, how):
        """Promise 4: what is unknown, missing, askew or of a chain set back is a person's."""
        world = self.world
        world.settle()
        question = world.question(world.new_case("s0", "v1"))
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
        question = {k: v for k, v in (question | odd).items() if v is not None}
        more = {} if how < 6 else {"ledger_head": {"revision": 3, "hash": "gone"}}
        (answer,) = world.ask([question], replica, **more).json()["answers"]
        assert answer["decider"] == "human"
        if how < 6 and not self._off(replica):
            self.checks.answered([question], [answer])
        self.checks.seen["odd questions"] += 1

    @rule(off=st.sampled_from([0, 6, -40]))
    def clock_goes_wrong(self, off):
        """Set the second replica's clock; it notices within seconds."""
        world = self.world
        world.off = {id(world.databases[1]): timedelta(seconds=off)} if off else {}
        world.clock.advance(6 * SECOND)

    @rule(span=st.sampled_from([0 * SECOND, 30 * SECOND, 2 * MINUTE, HOUR]), stopped=st.booleans())
    def offline(self, span, stopped):
        """Promise 4: a client decides by a copy of the scope, for as long as its lease."""
        world = self.world
        world.settle()
        scope_answer = world.get("box", "/scope?form=table-1")
        assert scope_answer.status_code == 200, scope_answer.text
        scope, sent = parse_snapshot(scope_answer.json()), Reading(world.clock)
        if stopped:
            world.stop("bo", SITES)
        before = world.rows[: scope.head.revision]
        world.clock.advance(span)
        for site in SITES * 4:
            case = world.new_case(site, "v1")
            rest = compute_time_left(scope.leases[site], sent, Reading(world.clock))
            question = CaseQuestion(site, world.now, "v1", case.key, confidence=case.marker)
            made = decide_locally(scope, question, now=world.now, time_left=rest)
            if span >= MINUTE:
                assert made.decider == "human"
            fold = type(self.checks.slow)(self.checks.slow.policies).read(before)
            most = self.checks.expected(fold, world.question(case))
            assert (made.decider == "model") <= (most[0] == "model")
            self.checks.seen[f"offline a {made.decider} decides"] += 1

    # Actions

    @precondition(lambda self: self.answers)
    @rule(
        how=st.sampled_from(["valid", "foreign", "none", "forged", "late", "stopped", "other"]),
        which=st.integers(0, 99),
    )
    def act(self, how, which):
        """Act on an answer; its permission is found afterwards."""
        world = self.world
        case, answer, asked_at = self.answers.pop(which % len(self.answers))
        if how == "late":
            world.clock.advance(2 * MINUTE)
        if how == "stopped":
            world.stop("bo", [case.site])
            world.clock.advance(SECOND)
        world.settle()
        permit = {"none": "", "foreign": "", "forged": answer["permit"][:-1] + "x"}.get(how)
        key = case.key
        if how == "foreign":
            key, permit = world.new_case(case.site, case.version).key, answer["permit"]
        permit = answer["permit"] if permit is None else permit
        world.send([world.case(case) | {"key": key}])
        if not answer["permit"].startswith("b."):
            world.send([world.prediction(case) | {"key": key}])
        done = "ring" if (case.label == "bear") != (how == "other") else "wait"
        act = {"kind": "action", "key": key, "lever": "alarm", "action": done, "by": "model"}
        act |= {"at": world.now.isoformat(), "version": case.version}
        if permit:
            act["permit"] = permit
        assert world.send([act]) == ["accepted"]
        authorization = world.get("zoe", f"/cases/{key}").json()["actions"][0]["authorization"]
        assert authorization == self._permission(how, case, answer, asked_at), (how, authorization)
        self.checks.seen[f"an action was {authorization}"] += 1

    def record_action(self, case, answer, acted_at):
        """Record what a client did as it was answered, which is authorized whenever it arrives."""
        world, at = self.world, {"at": acted_at.isoformat(), "version": case.version}
        world.send([world.case(case, acted_at)])
        if not answer["permit"].startswith("b."):
            world.send([world.prediction(case, acted_at)])
        done = "ring" if case.label == "bear" else "wait"
        act = {"kind": "action", "key": case.key, "lever": "alarm", "action": done, "by": "model"}
        assert world.send([act | at | {"permit": answer["permit"]}]) == ["accepted"]
        (action,) = world.get("zoe", f"/cases/{case.key}").json()["actions"]
        assert action["authorization"] == "authorized"

    def _permission(self, how, case, answer, asked_at):
        if how in {"foreign", "none", "forged", "other"}:
            return "unauthorized"
        world = self.world
        elapsed = (world.now - asked_at).total_seconds()
        if elapsed > answer["lease"] + 5:
            return "unauthorized"
        rung = self.checks_now().rung(case.site, case.version, world.now)
        if rung and self.checks.slow.policy.stages[rung - 1].audit:
            return "authorized"
        changed = (
            world.rows[answer["revision"]][1] if answer["revision"] < len(world.rows) else None
        )
        fresh = changed is not None and _micros(asked_at) <= changed + 500_000
        return "authorized_within_lease" if fresh else "unauthorized"


class Reading:
    """Both clocks of a client, as the service's."""

    def __init__(self, clock):
        self.boot, self.wall = clock.read_boot_clock(), clock.now()


def _micros(at):
    return round(at.timestamp() * 10**6)

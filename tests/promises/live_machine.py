"""Everything that people, machines and time do to a rollout, as the steps of a state machine."""

import sys
from datetime import timedelta

from hypothesis import currently_in_test_context, event
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from rollout.client.leases import left
from rollout.client.local_scope import read_scope
from rollout.core.asking import Question
from rollout.formats.policy_yaml import load_policy
from tests.promises import live_scenes as scenes
from tests.promises.live_checks import Checks, draw_of
from tests.promises.live_replayed import replayed, unlike
from tests.promises.live_world import (
    HOUR,
    LABELS,
    MINUTE,
    PEOPLE,
    REVIEWERS,
    SECOND,
    SITES,
    TEXTS,
    World,
)

VERSIONS = ("v1", "v2")
BEGUN = (0, 1, 2, 2, scenes.stopped, scenes.raised_by_oneself, scenes.wrong, scenes.unwatched)
GOOD, BAD = "good", "bad"
spans = st.sampled_from([SECOND, MINUTE, 12 * MINUTE, HOUR, 7 * HOUR, 26 * HOUR, 72 * HOUR])
sites = st.sampled_from([("s0",), ("s1",), SITES])
versions = st.sampled_from(["v1", "v1", "v1", "v2"])
replicas = st.sampled_from([0, 1])
people = st.sampled_from(PEOPLE)


class Life(RuleBasedStateMachine):
    """One rollout's life; `engine` is set by whoever runs it."""

    engine = "sqlite"
    totals = None  # a Counter that outlives a run, where somebody wants to know

    def __init__(self):
        super().__init__()
        self.world = World(self.engine)
        self.checks = Checks(self.world)
        self.answers = []  # that a model decides: (question, answer)
        self.held = {}

    def teardown(self):
        try:
            if sys.exc_info()[0] is None:  # what broke is told before what follows from it
                self.checks.follow()
                self.checks.whole()
                self._replay()
                self._tell()
        finally:
            self.world.close()

    def _tell(self):
        if currently_in_test_context():
            for what in self.checks.seen:
                event(what)
        if self.totals is not None:
            self.totals.update(self.checks.seen)

    def _replay(self):
        """Promise 10: the same records, commands and ticks, replayed, give the same events."""
        if self.world.plain:
            found, expected = replayed(self.world)
            parted = unlike(found, expected)
            assert not parted, parted
            self.checks.seen["runs replayed"] += 1
            self.checks.seen["events replayed"] += len(found)

    # How it begins

    @initialize(begun=st.sampled_from(BEGUN))
    def begins(self, begun):
        """Let people widen both cells, so that there is something to take away; or tell a scene."""
        if isinstance(begun, int):
            self.climb(begun)
        else:
            begun(self)

    def climb(self, rung):
        self.traffic(2, GOOD, "v1", True)
        for _ in range(rung):
            self.world.approve_all()
            self.traffic(1, GOOD, "v1", True)
            self.traffic(2, GOOD, "v1", True)

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
            world.clock.move(10 * MINUTE)
            if judged:
                world.send([v for one in said if (v := self._verdict(one, quality))])
            self.checks.seen[f"records of a {quality} {version}"] += len(items)
            world.to_next_slot()
            world.clock.move(SECOND)
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
            world.clock.move(3 * MINUTE)
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
        more = {} if how < 6 else {"seen": {"revision": 3, "hash": "gone"}}
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
        world.clock.move(6 * SECOND)

    @rule(span=st.sampled_from([0 * SECOND, 30 * SECOND, 2 * MINUTE, HOUR]), stopped=st.booleans())
    def offline(self, span, stopped):
        """Promise 4: a box decides by a copy of the scope, for as long as its lease."""
        world = self.world
        world.settle()
        told = world.get("box", "/scope")
        assert told.status_code == 200, told.text
        scope, sent = read_scope(told.json(), load_policy), Reading(world.clock)
        if stopped:
            world.stop("bo", SITES)
        before = world.rows[: scope.head.revision]
        world.clock.move(span)
        for site in SITES * 4:
            one = world.new_case(site, "v1")
            rest = left(scope.leases[site], sent, Reading(world.clock))
            asked = Question(site, world.now, "v1", one.key, confidence=one.marker)
            made = scope.assign(asked, now=world.now, left=rest)
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
            world.clock.move(2 * MINUTE)
        if how == "stopped":
            world.stop("bo", [one.site])
            world.clock.move(SECOND)
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
        found = world.get("zoe", f"/cases/{key}").json()["actions"][0]["permission"]
        assert found == self._permission(how, one, answer, asked_at), (how, found)
        self.checks.seen[f"an action was {found}"] += 1

    def _permission(self, how, one, answer, asked_at):
        if how in {"foreign", "none", "forged"}:
            return "unpermitted"
        world = self.world
        rung = self.checks_now().rung(one.site, one.version, world.now)
        if rung and self.checks.slow.policy.stages[rung - 1].audit:
            return "permitted"
        within = (world.now - asked_at).total_seconds() <= answer["lease"]
        changed = (
            world.rows[answer["revision"]][1] if answer["revision"] < len(world.rows) else None
        )
        fresh = changed is not None and _micros(asked_at) <= changed + 500_000
        return "in-lease" if within and fresh else "unpermitted"

    def checks_now(self):
        self.checks.follow()
        return self.checks

    # Reviews

    @rule(
        who=st.sampled_from(REVIEWERS),
        kind=st.sampled_from([None, None, "blind", "assisted"]),
        hold=st.integers(1, 3),
    )
    def claim(self, who, kind, hold):
        """Take cases to judge."""
        answer = self.world.post(who, "/reviews/claims", {"kind": kind, "hold": hold})
        assert answer.status_code == 200, answer.text
        self.held[who] = [task["review"] for task in answer.json()["tasks"]]

    @precondition(lambda self: any(self.held.values()))
    @rule(
        who=st.sampled_from(REVIEWERS),
        label=st.sampled_from([*LABELS, None]),
        claims=st.sampled_from(["blind", "revealed", None]),
        then=st.sampled_from(["reveal", "correct", "release", None]),
    )
    def judge(self, who, label, claims, then):
        """Judge what one holds, look, think again, give back."""
        if not self.held.get(who):
            return
        world, review = self.world, self.held[who].pop()
        if then == "release":
            world.post(who, f"/reviews/{review}/release")
            return
        world.get(who, f"/reviews/{review}/reveal")  # too early
        said = {"unsure": True} if label is None else {"answers": {"alarm": label}}
        said |= {} if claims is None else {"exposure": claims}
        judged = world.post(who, f"/reviews/{review}/decision", said)
        assert judged.status_code in {200, 404, 409, 422}, judged.text
        if judged.status_code == 200:
            self.checks.seen["verdicts at the desk"] += 1
            self.checks.judged(who, judged.json()["case"])
        if then == "reveal":
            world.get(who, f"/reviews/{review}/reveal")
        if then == "correct":
            world.plain = False  # replay knows a record's last revision alone
            world.post(
                who, f"/reviews/{review}/decision", {"answers": {"alarm": "bear"}, "supersedes": 1}
            )

    @rule(who=st.sampled_from(REVIEWERS), which=st.integers(0, 99))
    def look_around(self, who, which):
        """Open every page that one may, and some that one may not."""
        world = self.world
        keys = list(dict.fromkeys(key for key, _ in world.said))
        key = keys[-1 - which % len(keys)]
        for path in (
            "/reviews",
            f"/cases/{key}",
            "/cases?limit=100",
            "/cases?differs=true",
            "/cases?version=v1",
            "/set-aside",
            "/proposals?state=open&state=applied",
            "/cells/s0/always",
            "/versions",
            "/reviews/overdue",
            "/incidents",
        ):
            world.get(who, path)

    # People

    @rule(
        who=people,
        which=st.integers(0, 9),
        replica=replicas,
        right=st.sampled_from([True] * 3 + [False]),
    )
    def approve(self, who, which, replica, right):
        """Say yes, perhaps to something else than what was shown, perhaps without being asked."""
        world = self.world
        found = world.open_proposals()
        if not found:
            return
        proposal, evidence, _ = found[which % len(found)]
        cited = evidence if right else "0" * 64
        answer = world.approve(who, proposal, cited, replica)
        if not right or who in {"bot", "far"}:
            assert answer.status_code >= 400
        code = "yes" if answer.status_code == 200 else answer.json()["code"]
        self.checks.seen[f"approval: {code}"] += 1
        if answer.status_code == 200:
            again = world.approve(who, proposal, evidence, replica)
            assert again.status_code == 200
            assert again.json()["revision"] == answer.json()["revision"]

    @rule()
    def approve_all(self):
        """Let those who may say yes to all that waits."""
        self.world.approve_all()

    @rule(who=people, which=st.integers(0, 9))
    def reject(self, who, which):
        """Say no."""
        found = self.world.open_proposals()
        if found:
            answer = self.world.reject(who, found[which % len(found)][0])
            allowed = who != "far"
            assert answer.status_code in ({200, 403} if allowed else {404}), answer.text
            self.checks.seen["rejections"] += answer.status_code == 200

    @rule(who=people, where=sites, drill=st.booleans(), replica=replicas)
    def stop(self, who, where, drill, replica):
        """Stop: never refused for state, and it holds for the next question everywhere."""
        world = self.world
        answer = world.stop(who, where, drill=drill, replica=replica)
        if who in {"far", "bot", "cy"} or (who == "eve" and "s0" not in where):
            assert answer.status_code in {200, 201, 403, 404}
            return
        assert answer.status_code in {200, 201}, answer.text
        self.checks.seen["stops"] += 1
        self._nothing_acts([s for s in where if who != "eve" or s == "s0"])

    def _nothing_acts(self, where):
        world = self.world
        self.checks.follow()
        world.settle()
        for replica in (0, 1):
            asked = [
                world.question(world.new_case(site, version))
                for site in where
                for version in VERSIONS
            ]
            answers = world.ask(asked, replica).json()["answers"]
            assert {a["decider"] for a in answers} == {"human"}
            assert {a["stage"] for a in answers} == {"shadow"}
            self.checks.answered(asked, answers, doubted=self._off(replica))

    @rule(who=people, where=sites, to=st.sampled_from(["shadow", "supervised"]), replica=replicas)
    def narrow(self, who, where, to, replica):
        """Narrow: to shadow it is never refused for state."""
        world = self.world
        answer = world.narrow(who, list(where), to, replica)
        if who in {"zoe", "bo", "dan", "vic"}:
            assert answer.status_code in {200, 201} or answer.json()["code"] == "not-narrower"
            if to == "shadow":
                assert answer.status_code in {200, 201}, answer.text
                self._nothing_acts(where)

    @precondition(lambda self: self.checks.slow.stops)
    @rule(who=people, which=st.integers(0, 9))
    def resume(self, who, which):
        """Ask that a stop is taken back."""
        stops = sorted(self.checks.slow.stops)
        self.world.resume(who, stops[which % len(stops)])

    @rule(which=st.sampled_from(sorted(TEXTS)), who=st.sampled_from(["zoe", "zoe", "bo"]))
    def edit(self, which, who):
        """Edit the policy."""
        answer = self.world.put_policy(which, who)
        assert answer.status_code in {200, 202} if who == "zoe" else answer.status_code == 403
        outcome = answer.json().get("outcome", "refused")
        self.checks.seen[f"policy edit: {outcome}"] += 1

    @rule(version=versions, who=st.sampled_from(["bo", "cy"]))
    def retire(self, version, who):
        """Take a version out of service."""
        answer = self.world.retire(who, version)
        assert answer.status_code in {200, 404} if who == "bo" else answer.status_code == 403

    @rule(
        kind=st.sampled_from(["takeover", "renewal"]),
        site=st.sampled_from(SITES),
        version=versions,
        to=st.sampled_from(["supervised", "autonomous"]),
    )
    def raise_one(self, kind, site, version, to):
        """Propose by hand."""
        world = self.world
        body = {"kind": kind, "site": site, "window": "always", "version": version, "to": to}
        answer = world.post("bo", "/proposals", body)
        if answer.status_code == 201:
            world.plain = False  # on evidence that replay would show at a tick alone
            self.checks.seen[f"{kind} raised by hand"] += 1

    # Time

    @rule(span=spans)
    def wait(self, span):
        """Let time pass in which no process looks at anything: downtime, if it is long."""
        self.world.clock.move(span)

    @rule(replica=replicas)
    def tick(self, replica):
        """Look at what is due; what was missed is one pass."""
        self.world.tick(replica)

    @rule(hours=st.integers(1, 30))
    def quiet_hours(self, hours):
        """Tick through hours in which nothing comes in but signs of life."""
        world = self.world
        for _ in range(min(hours, 8)):
            world.to_next_slot()
            beats = [{"kind": "heartbeat", "site": s, "at": world.now.isoformat()} for s in SITES]
            if hours % 2:
                world.send(beats)
            world.tick()

    # What holds after each step

    @invariant()
    def promises_hold(self):
        """Read the ledger's new rows, ask both replicas, look through what reviewers got."""
        self.checks.follow()
        self.checks.blind()
        self.world.settle()
        for replica in (0, 1):
            asked = [
                self.world.question(self.world.new_case(site, version))
                for site in SITES
                for version in VERSIONS
            ]
            answer = self.world.ask(asked, replica)
            self.checks.answered(asked, answer.json()["answers"], doubted=self._off(replica))
        self.checks.blind()


class Reading:
    """Both clocks of a box, as the service's."""

    def __init__(self, clock):
        self.boot, self.wall = clock.boot(), clock.now()


def _micros(at):
    return round(at.timestamp() * 10**6)

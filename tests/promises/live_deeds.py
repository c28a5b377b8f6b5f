"""What people do: judge, approve, stop, edit, retire."""

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from tests.promises.live_lots import VERSIONS, people, replicas, sites, versions
from tests.promises.live_world import (
    LABELS,
    REVIEWERS,
    SITES,
    TEXTS,
)


class Deeds(RuleBasedStateMachine):
    """The steps of people; what they use is made by `live_machine.Life`."""

    # Reviews

    @rule(
        who=st.sampled_from(REVIEWERS),
        kind=st.sampled_from([None, None, "blind", "assisted"]),
        hold=st.integers(1, 3),
    )
    def claim(self, who, kind, hold):
        """Take cases to judge."""
        answer = self.world.post(who, "/reviews/claims", {"kind": kind, "claims": hold})
        assert answer.status_code == 200, answer.text
        self.held[who] = [task["review"] for task in answer.json()["tasks"]]

    @precondition(lambda self: any(self.held.values()))
    @rule(
        who=st.sampled_from(REVIEWERS),
        label=st.sampled_from([*LABELS, None]),
        claims=st.sampled_from(["blind", "revealed", None]),
        then=st.sampled_from(["correct", "release", None]),
    )
    def judge(self, who, label, claims, then):
        """Judge what one holds, look, think again, give back."""
        if not self.held.get(who):
            return
        world, review = self.world, self.held[who].pop()
        if then == "release":
            world.post(who, f"/reviews/{review}/release")
            return
        answer = {"unsure": True} if label is None else {"answers": {"alarm": label}}
        answer |= {} if claims is None else {"exposure": claims}
        judged = world.post(who, f"/reviews/{review}/decision", answer)
        assert judged.status_code in {200, 404, 409, 422}, judged.text
        if judged.status_code == 200:
            self.checks.seen["verdicts at the desk"] += 1
            self.checks.judged(who, judged.json()["case"])
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
            "/rejected-records",
            "/proposals?state=open&state=applied",
            "/cells/s0/always",
            "/cells/s0/always/timeline",
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
        proposals = world.open_proposals()
        if not proposals:
            return
        proposal, evidence, _ = proposals[which % len(proposals)]
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
        proposals = self.world.open_proposals()
        if proposals:
            answer = self.world.reject(who, proposals[which % len(proposals)][0])
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
            reports = [
                world.question(world.new_case(site, version))
                for site in where
                for version in VERSIONS
            ]
            answers = world.ask(reports, replica).json()["answers"]
            assert {a["decider"] for a in answers} == {"human"}
            assert {a["stage"] for a in answers} == {"shadow"}
            self.checks.answered(reports, answers, doubted=self._off(replica))

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

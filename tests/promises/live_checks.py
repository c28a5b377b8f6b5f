"""What the promises ask of a running service, checked by a model of its own.

What is allowed comes from `slow_fold`, draws from the standard library, evidence from the marks
of counting; of the program only the ledger's verifier and fold are used, to compare with.
"""

import hmac
import json
from collections import Counter
from datetime import datetime, timedelta
from hashlib import sha256
from math import inf, log

from rollout.data.ledger.ledger import Ledger
from rollout.data.tables.record_tables import decode_instant, encode_instant
from rollout.engine.decide.scope import compute_stage_level
from tests.ledger_verifier import compare_histories
from tests.oracles import (
    NAMES,
    chain_whole,
    counted_once,
    rows_of,
    scope_held,
    shown_hashes_alone,
)
from tests.promises.live_world import HOUR, POLICIES, REVIEWERS, SITES, WINDOW
from tests.slow_fold import SlowFold

SALT = bytes(32)
RISK = 0.2  # of every gate here; of later attempts it is smaller


def stored_span(span):
    """Return a span in the ledger's microseconds."""
    return int(span.total_seconds()) * 10**6


def draw_of(key):
    """Return where a case's draw lies: the top 53 bits of an HMAC, as a share."""
    made = hmac.new(SALT, b"stage\x1f" + key.encode(), sha256).digest()
    return (int.from_bytes(made[:8], "big") >> 11) / 2**53


class Checks:
    """Look at a world after each step; `seen` counts what there was to look at."""

    def __init__(self, world):
        self.world, self.seen = world, Counter()
        self.slow, self._read = SlowFold(POLICIES), 0
        self._shown = set()  # (reviewer, key): the model's answer was in what they got
        self._bodies = 0
        self.follow()

    # The ledger: promises 1, 5, 7

    def follow(self):
        """Read the new rows; return what is wrong with them."""
        rows = self.world.rows
        for row in rows[self._read :]:
            self.slow.read([row])
            self.seen[row[2] + (" drill" if row[4].get("drill") else "")] += 1
            if row[2] in {"Widened", "ProposalRaised"}:
                self._supported(row)
            if row[2] == "ProposalRaised" and row[4].get("site"):
                self._sourced(row)
        self._read = len(rows)
        assert not self.slow.faults, self.slow.faults

    def _supported(self, row):
        """Promise 1: a widening was asked for and given on evidence that speaks for it."""
        body, raised = row[4], row[2] == "ProposalRaised"
        if raised and body["kind"] != "widening":
            return
        agreed, units = self._units(body, row[1])
        line = self._line(body["to_stage"])
        share = agreed / units if units else 0.0
        assert share >= line, f"revision {row[0]}: {agreed} of {units} for a line of {line}"
        if raised:
            most = _ratio(agreed, units, line)  # no e-value is larger than the best single bet
            assert most >= log(1 / RISK), f"revision {row[0]}: {agreed} of {units} proves nothing"

    def _sourced(self, row):
        """Promise 1: a proposal of a cell names the senders of the decisions that counted."""
        query = (
            "select s.attempt, m.reviewer from counted_units m "
            "join count_series s on s.id = m.series_id where m.rollout = :rollout "
            "and m.track = 'gate' and m.exclusion_reason is null and m.reviewer is not null "
            "and s.site = :site and s.version = :version and m.slot <= :slot"
        )
        of = {"site": row[4]["site"], "version": row[4]["version"]}
        slot = row[1] // stored_span(HOUR)
        with self.world.databases[0].begin_read() as transaction:
            marks = rows_of(transaction, self.world.rollout, query, slot=slot, **of)
            accounts = rows_of(transaction, self.world.rollout, NAMES)
        (desk,) = (account for account, name in accounts if name == "desk")
        newest = max((mark[0] for mark in marks), default=1)
        units, people = Counter(), {}
        for reviewer in [mark[1] for mark in marks if mark[0] == newest]:
            source = "reviews" if reviewer in REVIEWERS else desk
            units[source] += 1
            people.setdefault(source, set()).add(reviewer)
        expected = {f"{source} {n} {len(people[source])}" for source, n in units.items()}
        facts = row[4].get("sources", ())
        stated = {f"{fact['source']} {fact['decisions']} {fact['reviewers']}" for fact in facts}
        assert stated == expected, (row, expected)
        self.seen["sources of a proposal"] += bool(expected)

    def _line(self, to):
        conditions = [gate.require for gate in self.slow.policy.gates if gate.to == to]
        return conditions[0][0].threshold

    def _units(self, body, at):
        """Return how many units of the newest attempt agreed, and how many closed, by marks."""
        query = (
            "select c.predicted, c.decided, s.attempt, count(*) from counted_units m "  # noqa: S608 - ours
            "join count_series s on s.id = m.series_id, count_classes c "
            "where m.rollout = :rollout and m.track = 'gate' and m.exclusion_reason is null "
            "and c.decided <> '' and s.site = :site and s.version = :version and m.slot <= :slot "
            f"and {self._kind_of_mark()} group by c.predicted, c.decided, s.attempt"
        )
        slot = at // stored_span(HOUR)
        of = {"site": body["site"], "version": body["version"], "slot": slot}
        with self.world.databases[0].begin_read() as transaction:
            rows = rows_of(transaction, self.world.rollout, query, **of)
        newest = max((row[2] for row in rows), default=1)
        mine = [row for row in rows if row[2] == newest]
        return sum(n for p, d, _, n in mine if p == d), sum(row[3] for row in mine)

    def _kind_of_mark(self):
        if self.world.engine == "postgresql":
            return "c.id in (select value::bigint from json_array_elements_text(m.class_ids::json))"
        return "c.id in (select value from json_each(m.class_ids))"

    def whole(self):
        """Promise 5, and what counting owes: the ledger's replay is the scope, bit by bit."""
        world = self.world
        with world.databases[0].begin_read() as transaction:
            rollout = world.rollout
            instants = [world.now, *self._ends()]
            wrong = [
                *chain_whole(transaction, rollout),
                *scope_held(transaction, rollout, POLICIES, instants),
                *shown_hashes_alone(transaction, rollout, world.cited),
                *counted_once(transaction, rollout),
            ]
            assert not wrong, wrong
            ledger = Ledger(transaction, rollout)
            scope, policy = ledger.load_scope(), POLICIES[self.slow.policy.hash]
            compare_histories(list(ledger.list_lines()), POLICIES)
        world.settle()
        for service in world.services:
            watched = service.state_cache.reload_rollout("story")
            assert watched.state.scope == scope
            assert watched.head.revision == scope.revision == len(world.rows)
        for cell, version in scope.cells:
            for at in instants:
                stage_level = compute_stage_level(scope, policy, cell, version, at)
                assert stage_level == self.rung(cell.site, version, at), (cell, version, at)

    def _ends(self):
        ends = {grant[2] for grants in self.slow.grants.values() for grant in grants}
        return [
            at for end in sorted(ends)[-4:] for at in (decode_instant(end - 1), decode_instant(end))
        ]

    # Questions: promises 2, 3 and 4

    def rung(self, site, version, at):
        return self.slow.stage(site, WINDOW, version, encode_instant(at))

    def answered(self, sent_question, answers, *, doubted=False):
        """Compare answers with what the ledger's rows allow; `doubted`: people decide."""
        world = self.world
        assert len(answers) == len(sent_question)
        for question, answer in zip(sent_question, answers, strict=True):
            revision = answer["revision"]
            is_in_ledger = revision <= len(world.rows) or doubted
            assert is_in_ledger, f"revision {revision} of {len(world.rows)}"
            fold = self.slow
            if doubted:
                expected = ("human", "shadow", "blind")
            else:
                assert revision >= world.least_revision(), "an answer from what was"
                if revision < len(world.rows):
                    fold = SlowFold(POLICIES).read(world.rows[:revision])
                    self.seen["answered from what was, within its time"] += 1
                expected = self.expected(fold, question)
            answer_fields = tuple(answer[n] for n in ("decider", "stage", "exposure"))
            assert answer_fields == expected, (question, answer, expected)
            self.seen[f"a {answer_fields[0]} decides at {answer_fields[1]}"] += 1
            if answer_fields[0] == "model":
                assert 0 < answer["lease"] <= 60
                assert world.now + timedelta(seconds=answer["lease"]) <= self._until(fold, question)
            self._count_doubts(fold, question)

    def expected(self, fold, question):
        """Return decider, stage and exposure, as a ledger's fold has it."""
        policy, now = fold.policy, self.world.now
        at, version = question.get("at"), question.get("version")
        person = ("human", "shadow", "blind")
        if at is None or not version or not question.get("key") or question["site"] not in SITES:
            return person
        if abs(encode_instant(datetime.fromisoformat(at)) - encode_instant(now)) > 5 * 60 * 10**6:
            return person
        rung = fold.stage(question["site"], WINDOW, version, encode_instant(now))
        if rung == 0:
            return person
        stage, drawn = policy.stages[rung - 1], draw_of(question["key"])
        if drawn < stage.blind:
            return ("human", stage.id, "blind")
        if not stage.audit:
            return ("human", stage.id, "assisted")
        return ("model", stage.id, "blind")

    def _until(self, fold, question):
        grants = fold.grants[question["site"], WINDOW, question["version"]]
        return decode_instant(min(grant[2] for grant in grants))

    def _count_doubts(self, fold, question):
        """Note the cases that promises 2 and 3 are about."""
        key = (question.get("site"), WINDOW, question.get("version"))
        grants, now = fold.grants.get(key, ()), encode_instant(self.world.now)
        if any(key[:2] in cells for cells in fold.stops.values()) and grants:
            self.seen["asked of a stopped cell with grants"] += 1
        if any(grant[2] <= now for grant in grants):
            self.seen["asked of an expired grant that no tick has noted"] += 1
        if fold.suspended.get(key) and grants:
            self.seen["asked of a suspended cell"] += 1

    # Reviewers: promise 6

    def blind(self):
        """Look for what models said in all that reviewers were given."""
        world = self.world
        for who, text, hidden in world.bodies[self._bodies :]:
            leaked_keys = {case.key for case in world.said.values() if str(case.marker) in text}
            assert not leaked_keys & hidden, (who, leaked_keys & hidden, text)
            self._shown |= {(who, key) for key in leaked_keys}
            self.seen["answers to reviewers"] += 1
            self.seen["predictions that they may see"] += len(leaked_keys)
            for task in _tasks(text):
                self.seen[f"{task['kind']} tasks"] += 1
                was_shown = task["kind"] == "blind" and (who, task["case"]) in self._shown
                assert not was_shown, f"{who} saw {task['case']}, and is to judge it blind"
        self._bodies = len(world.bodies)

    def judged(self, who, key):
        """Promise 6, the other way: who had seen the model's answer judged nothing blind."""
        self.blind()
        if (who, key) not in self._shown:
            return
        query = (
            "select d.exposure from decisions d join external_keys k on k.id = d.case_id "
            "where d.rollout = :rollout and k.key = :key and d.reviewer = :who"
        )
        with self.world.databases[0].begin_read() as transaction:
            rows = rows_of(transaction, self.world.rollout, query, key=key, who=who)
        assert ("blind",) not in rows, f"{who} had seen {key}"
        self.seen["verdicts of who had seen the prediction"] += 1


def _tasks(text):
    if '"tasks"' not in text:
        return []
    return json.loads(text).get("tasks", [])


def _ratio(agreed, units, line):
    """Return the log of the largest likelihood ratio over the line that the counts can give."""
    share, failed = agreed / units, units - agreed
    if share <= line:
        return -inf
    return agreed * log(share / line) + (failed * log((1 - share) / (1 - line)) if failed else 0)

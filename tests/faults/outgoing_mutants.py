"""How to break what leaves: reports, deliveries, replies under a key; `mutants` names each."""

from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import replace
from unittest import mock

from api import idempotency
from api.idempotency import IdempotencyMiddleware
from rollout.data.access.idempotency_keys import IdempotentResponse
from rollout.data.database.rollouts import Rollouts
from rollout.data.database.session import Database
from rollout.data.ledger.ledger import Ledger
from rollout.data.reports.reports import ReportStore
from rollout.features.delivery import delivery
from rollout.features.reports import builder
from tests.faults.instead import instead


def seal_alone(stack, _copies, _url):
    def seal(_original):
        def unledgered(transaction, rollout_name, draft, _by):
            rollout = Rollouts(transaction).find(rollout_name)
            changed = replace(
                draft.report, sealed_in=Ledger(transaction, rollout).load_head().revision
            )
            number = ReportStore(transaction, rollout).store(changed)
            return builder.CreatedReport(number, changed, is_new=True)

        return unledgered

    instead(stack, builder, "_seal_report", seal)


def seal_apart(stack, _copies, _url):
    def seal(original):
        def in_another_transaction(self, report):
            self._transaction.connection.exec_driver_sql("commit")
            self._transaction.connection.exec_driver_sql("begin")
            return original(self, report)

        return in_another_transaction

    instead(stack, ReportStore, "store", seal)


def mark_early(stack, _copies, _url):
    def tried(original):
        def marked_first(service, taken, write, by):
            delivery._record_attempt(service, taken, "")
            return original(service, taken, write, by)

        return marked_first

    instead(stack, delivery, "_try_delivery", tried)


def key_of_try(stack, _copies, _url):
    def key_of(original):
        return lambda taken, report: f"{original(taken, report)}-{taken.attempts}"

    instead(stack, delivery, "build_delivery_key", key_of)


def reply_uncommitted(stack, _copies, _url):
    def call(_original):
        async def kept_first(self, scope, receive, send):
            message = await receive()
            who, key = scope["state"]["caller"].name, idempotency._find_key(scope)
            request_hash = idempotency._hash_request(scope, message["body"])
            response = self._find_response(who, key)
            if response is not None:
                await idempotency._replay_response(response, request_hash)(scope, receive, send)
                return
            parts = []

            async def hear(part):
                parts.append(part)

            with ExitStack() as uncommitted:
                writing, reading = _left_open(uncommitted)
                with mock.patch.multiple(Database, begin_write=writing, begin_read=reading):
                    await self.app(scope, idempotency.replay_message(message, receive), hear)
                body = b"".join(part.get("body", b"") for part in parts).decode()
                self._store_reply(
                    who, key, IdempotentResponse(request_hash, parts[0]["status"], body)
                )
            for part in parts:
                await send(part)

        return kept_first

    instead(stack, IdempotencyMiddleware, "__call__", call)


def _left_open(stack):
    """Return a `writing` that commits with the stack's end, and a `reading` that sees it before.

    Of several the first: those after it note when it was committed.
    """
    begin, look, begun = Database.begin_write, Database.begin_read, []

    @contextmanager
    def writing(self, **how):
        begun.append(stack.enter_context(begin(self, **how)))
        yield begun[-1]

    @contextmanager
    def reading(self):
        with nullcontext(begun[0]) if begun else look(self) as transaction:
            yield transaction

    return writing, reading

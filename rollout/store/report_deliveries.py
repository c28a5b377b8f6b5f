"""Where one report went: its deliveries, by channel."""

from sqlalchemy import select

from rollout.store.deliveries import Deliveries, Delivery
from rollout.store.rollouts import Rollout
from rollout.store.session import Transaction
from rollout.store.tables import deliveries


def deliveries_of_report(transaction: Transaction, rollout: Rollout, report: int) -> list[Delivery]:
    """Return the deliveries of a report, in the order in which they were queued."""
    query = select(deliveries.c.id).where(
        deliveries.c.rollout == rollout.number, deliveries.c.report == report
    )
    numbers = transaction.execute(query.order_by(deliveries.c.id)).scalars().all()
    own = Deliveries(transaction, rollout)
    found = (own.find(number) for number in numbers)
    return [one for one in found if one is not None]

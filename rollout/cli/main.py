"""`rollout`: the commands, put together."""

from importlib.util import find_spec

import typer

from rollout.cli import ledger
from rollout.cli.demo import demo
from rollout.cli.plan import draft, plan
from rollout.cli.replay import replay
from rollout.cli.serve import serve

app = typer.Typer(
    name="rollout",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    help="Widen a model's scope site by site and hour by hour, on evidence that people approve.\n\n"
    "Start with `rollout demo`. With two files of your own: `rollout init`, `rollout plan`, "
    "`rollout replay`. For a service: `rollout db upgrade`, `rollout people first-admin`, "
    "`rollout serve`.",
)
app.command("demo")(demo)
app.command("replay")(replay)
app.command("plan")(plan)
app.command("init")(draft)
app.command("serve")(serve)
app.add_typer(ledger.app, name="ledger")

if find_spec("sqlalchemy") and find_spec("alembic"):  # the extra `server`: replay does without
    from rollout.cli import baseline, doctor, live, people

    live.register(app, ledger.app)
    people.register(app)
    baseline.register(app)
    app.command("doctor")(doctor.doctor)

"""The command line `rollout`: all commands and groups."""

from importlib.util import find_spec

import typer

from rollout.cli import channels, clean, ledger, training
from rollout.cli.compare import compare
from rollout.cli.demo import demo
from rollout.cli.drafting import draft
from rollout.cli.former_names import RenamingGroup
from rollout.cli.plan import plan
from rollout.cli.replay import replay
from rollout.cli.serve import serve

app = typer.Typer(
    name="rollout",
    cls=RenamingGroup,
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    help="Roll out a model in stages, site by site and hour by hour, on evidence that humans "
    "approve.\n\n"
    "Start with `rollout demo`. With two files of your own: `rollout init`, `rollout plan`, "
    "`rollout replay`. To try the service: `rollout quickstart`. For a service: "
    "`rollout db upgrade`, `rollout users first-admin`, `rollout serve`.",
)
app.command("demo")(demo)
app.command("replay")(replay)
app.command("compare")(compare)
app.command("plan")(plan)
app.command("init")(draft)
app.command("serve")(serve)
app.add_typer(ledger.app, name="ledger")
app.add_typer(channels.app, name="channels")
app.add_typer(clean.app, name="clean")
app.add_typer(training.app, name="training")

if find_spec("sqlalchemy") and find_spec("alembic"):  # the extra `server`; replay works without it
    from rollout.cli import baseline, deliveries, doctor, live, live_training, reporting, users
    from rollout.cli.quickstart import quickstart
    from rollout.cli.simulate import simulate

    live.register(app, ledger.app)
    users.register(app)
    live_training.register()
    app.command("quickstart")(quickstart)
    app.command("simulate")(simulate)
    app.command("baseline")(baseline.import_baseline)
    app.command("report")(reporting.create_report)
    app.command("doctor")(doctor.run_doctor)
    app.command("deliveries")(deliveries.manage_deliveries)

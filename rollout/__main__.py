"""`python -m rollout`: the command line, where no script is on the path."""

from rollout.cli.main import app

app(prog_name="rollout")

"""`python -m rollout`: the command line, where no script is on the path."""

from rollout.cli.main import app

if __name__ == "__main__":
    app(prog_name="rollout")

"""The files of config/deploy, and the commands in them that call the program."""

import configparser
import json
import re
import shlex
from pathlib import Path

import yaml

FOLDER = Path(__file__).parents[2] / "config" / "deploy"
PROGRAM = "/opt/rollout/bin/rollout"


def read_text(name):
    return (FOLDER / name).read_text("utf-8")


def load_compose():
    return yaml.safe_load(read_text("compose.yaml"))


def load_unit():
    """Return the systemd unit; a key that stands twice is an error."""
    unit = configparser.ConfigParser(interpolation=None)
    unit.optionxform = str
    unit.read_string(read_text("rollout.service"))
    return unit


def load_instructions():
    """Return the Containerfile's instructions with their arguments."""
    text = re.sub(r"\\\n\s*", "", read_text("Containerfile"))
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [tuple(line.split(" ", 1)) for line in lines]


def find_health_check():
    """Return the words of the container's health check."""
    (check,) = (words for name, words in load_instructions() if name == "HEALTHCHECK")
    return json.loads(check.partition(" CMD ")[2])


def find_backup_calls():
    return re.findall(r"\brollout (db .*)$", read_text("back-up.sh"), re.MULTILINE)


def list_program_calls():
    """Return each call of the program: its file, and the words after the program's name."""
    services = load_compose()["services"].items()
    own = [(name, made) for name, made in services if "entrypoint" not in made]
    calls = [(f"compose: {name}", made["command"]) for name, made in own if "command" in made]
    calls += [("back-up.sh", shlex.split(line)) for line in find_backup_calls()]
    for key in ("ExecStartPre", "ExecStart"):
        program, *words = shlex.split(load_unit()["Service"][key])
        assert program == PROGRAM
        calls.append((f"systemd: {key}", words))
    instructions = dict(load_instructions())
    assert json.loads(instructions["ENTRYPOINT"]) == ["rollout"]
    return [*calls, ("container: CMD", json.loads(instructions["CMD"]))]


def list_first_calls():
    """Return the calls for first admin and policy that the compose file begins with."""
    lines = re.findall(r"^#.* run --rm manage (.*)$", read_text("compose.yaml"), re.MULTILINE)
    return [shlex.split(line) for line in lines]

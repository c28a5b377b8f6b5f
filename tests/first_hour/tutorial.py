"""docs/tutorial.md as steps: a comment names the terminal, a block has commands and output."""

import re
from dataclasses import dataclass

from tests.docs.pages import text_of

PAGE = "docs/tutorial.md"
STEP = re.compile(
    r"<!-- (?:terminal (?P<terminal>\d)(?:: (?P<mode>[\w-]+))?|file: (?P<file>\S+)) -->"
    r"(?:\n```\w+\n(?P<block>.*?)```)?",
    re.DOTALL,
)


@dataclass(frozen=True)
class TutorialStep:
    """One thing to do: `mode` is run, start, prints, Ctrl-C or save."""

    mode: str
    terminal: str
    block: str

    @property
    def commands(self):
        """Return each command with the lines that the page has below it."""
        commands = []
        for line in self.block.splitlines():
            if line.startswith("$ "):
                commands.append((line[2:], []))
            else:
                commands[-1][1].append(line)
        return commands


def steps_of(text):
    """Return the steps of the tutorial, in order."""
    for match in STEP.finditer(text):
        if match["file"]:
            yield TutorialStep("save", match["file"], match["block"])
        else:
            yield TutorialStep(match["mode"] or "run", match["terminal"], match["block"] or "")


def tutorial_steps():
    return list(steps_of(text_of(PAGE)))


def untried_blocks(text):
    """Return the blocks of commands or code that no step has."""
    blocks = re.findall(r"```(?:console|text|python|js|sh)\n(.*?)```", text, re.DOTALL)
    tried = {step.block for step in steps_of(text)}
    return [block for block in blocks if block not in tried]

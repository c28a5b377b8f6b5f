"""What the cameras show: which boards hang where, and drawings of them for reviewers.

A drawing follows from the scene alone, never from an answer; names of files are numbers. Players
are grey figures.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from boards import EMPTY, KINDS, LISTED, UNLISTED, Integers, open_stream, read_glyph

from rollout.features.demo.recorded_cases import encode_colours

BOARDS: Final = 4
FILLED: Final = 0.45  # share of boards with a logo
HOME_SCENES: Final = 24  # for each site
GUEST_SCENES: Final = 8  # at the arena: one board shows the guests' sponsor, whom nobody listed
OTHER, NOTHING = "other", "(none of them)"

WIDTH, HEIGHT = 144, 96
COLOURS: Final = {
    "acorn": (150, 90, 30),
    "bluebird": (30, 110, 220),
    "cobalt": (20, 40, 150),
    "dynamo": (230, 150, 0),
    "ember": (220, 60, 30),
    "foxglove": (170, 50, 150),
    "granite": (90, 90, 96),
    "harbor": (0, 130, 140),
    "zephyr": (40, 150, 60),
}
GROUNDS: Final = {"stadium": (70, 140, 70), "arena": (214, 228, 238)}  # grass and ice
STANDS, BOARD_PAPER, PLAYER = (96, 100, 116), (246, 246, 240), (60, 60, 66)


@dataclass(frozen=True, slots=True)
class Scene:
    """One camera's view: its number, site, four boards as positions in KINDS."""

    number: int
    site: str
    boards: tuple[int, ...]

    @property
    def answer(self) -> str:
        """The right set of labels, as one text."""
        return format_answer(self.boards)


def format_answer(boards: tuple[int, ...]) -> str:
    """Return the set of labels of some boards; the unlisted logo is `other`."""
    kinds = {KINDS[board] for board in boards} - {EMPTY}
    labels = {OTHER if kind == UNLISTED else kind for kind in kinds}
    return ";".join(sorted(labels)) or NOTHING


def list_scenes(seed: int) -> dict[str, list[Scene]]:
    """Return the scenes of the stadium, of the arena, and of the arena with guests."""
    luck = open_stream(seed, "scenes")
    sizes = {"stadium": HOME_SCENES, "arena": HOME_SCENES, "guests": GUEST_SCENES}
    scenes: dict[str, list[Scene]] = {}
    for group, size in sizes.items():
        begin = sum(map(len, scenes.values()))
        scenes[group] = [
            Scene(begin + number, "arena" if group == "guests" else group, hang_boards(group, luck))
            for number in range(size)
        ]
    return scenes


def hang_boards(group: str, luck: np.random.RandomState) -> tuple[int, ...]:
    """Return four boards; with guests one of them is theirs."""
    boards = [
        int(luck.randint(len(LISTED))) if luck.random_sample() < FILLED else KINDS.index(EMPTY)
        for _ in range(BOARDS)
    ]
    if group == "guests":
        boards[int(luck.randint(BOARDS))] = KINDS.index(UNLISTED)
    return tuple(boards)


def find_picture_name(scene: Scene) -> str:
    """Return the scene's drawing, relative to the records."""
    return f"pictures/scene-{scene.number:02}.png"


def draw_pictures(scenes: dict[str, list[Scene]]) -> dict[str, bytes]:
    """Return the drawing of each scene, by file name."""
    return {
        Path(find_picture_name(scene)).name: encode_colours(draw(scene))
        for group in scenes.values()
        for scene in group
    }


def draw(scene: Scene) -> npt.NDArray[np.uint8]:
    """Return stands above, boards in the middle, ground and players below."""
    image = np.empty((HEIGHT, WIDTH, 3), dtype=np.int64)
    image[:] = STANDS
    image[4:34:6, ::4] = (150, 140, 130)  # spectators
    image[40:] = GROUNDS[scene.site]
    for place, board in enumerate(scene.boards):
        left = 2 + 36 * place
        image[34:66, left : left + 32] = BOARD_PAPER
        if KINDS[board] in COLOURS:
            draw_logo(image[38:62, left + 4 : left + 28], KINDS[board])
    for left in (20 + 11 * (scene.number % 3), 80 + 13 * (scene.number % 4)):
        image[62:72, left : left + 6] = PLAYER
        image[56:61, left + 1 : left + 5] = PLAYER
        image[72:80, left : left + 2] = image[72:80, left + 4 : left + 6] = PLAYER
    return image.astype(np.uint8)


def draw_logo(area: Integers, kind: str) -> None:
    """Draw a logo of 24 x 24 pixels in its colour."""
    marks = np.kron(read_glyph(kind), np.ones((3, 3), dtype=np.int64)).astype(np.bool_)
    area[marks] = COLOURS[kind]

"""The pictures that reviewers of an example see, as `data:` addresses."""

from base64 import b64encode
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from rollout.features.demo.catalog import ExampleSystem
from rollout.features.demo.digit_pictures import (
    DIGITS_FILE,
    DigitPictures,
    load_digit_pictures,
)
from rollout.features.demo.example_cases import ExampleCase

PICTURE = "picture"


@dataclass
class CasePictures:
    """The pictures of an example's cases: files beside its records, or drawn digits."""

    example: ExampleSystem
    _addresses: dict[Path, str] = field(default_factory=dict, repr=False)

    def find_media(self, case: ExampleCase) -> dict[str, str]:
        """Return the picture of a case by its name; nothing if the example has none."""
        if self._digits is not None:
            return {PICTURE: self._digits.find_picture(case.attributes, case.at)}
        if not case.media:
            return {}
        return {PICTURE: self._read_file(self.example.records_folder / case.media)}

    @cached_property
    def _digits(self) -> DigitPictures | None:
        has_digits = (self.example.records_folder / DIGITS_FILE).is_file()
        return load_digit_pictures(self.example) if has_digits else None

    def _read_file(self, path: Path) -> str:
        if path not in self._addresses:
            content = b64encode(path.read_bytes()).decode("ascii")
            self._addresses[path] = f"data:image/png;base64,{content}"
        return self._addresses[path]

"""Where the files lie that come with the product: beside the package in a checkout, else in it."""

from pathlib import Path

import rollout

PACKAGE = Path(rollout.__file__).parent
PLACES = {  # what it is: (in a checkout, in an installed wheel)
    "config": ("config", "_config"),
    "mail-room": ("examples/mail-room/records", "_mail_room"),
}


def shipped(what: str) -> Path:
    """Return the folder of `what`, one of PLACES.

    Raises:
        FileNotFoundError: the installation is not whole; the text says what to do.
    """
    checkout_path, installed_path = PLACES[what]
    for folder in (PACKAGE / installed_path, PACKAGE.parent / checkout_path):
        if folder.is_dir():
            return folder
    raise FileNotFoundError(f"{what} did not come with this installation; install it again")

"""Find data files of the product, in a checkout or an installed package."""

from pathlib import Path

import rollout

PACKAGE_FOLDER = Path(rollout.__file__).parent
DATA_FOLDERS = {  # name: (folder in a checkout, folder in an installed package)
    "config": ("config", "_config"),
    "examples": ("examples", "_examples"),
}


def find_package_data(data_name: str) -> Path:
    """Return the folder of `data_name`, a key of `DATA_FOLDERS`.

    Raises:
        FileNotFoundError: the installation is incomplete; the text has the remedy.
    """
    checkout_path, installed_path = DATA_FOLDERS[data_name]
    for folder in (PACKAGE_FOLDER / installed_path, PACKAGE_FOLDER.parent / checkout_path):
        if folder.is_dir():
            return folder
    raise FileNotFoundError(f"{data_name} is missing from this installation; install it again")

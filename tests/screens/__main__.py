"""Writes the screens of the documentation: `make screens`."""

import logging

from tests.screens.screens import FOLDER, a_shop, pages


def main() -> None:
    """Replaces the files of all screens."""
    logging.disable()
    for old in FOLDER.glob("*.txt"):
        old.unlink()
    with a_shop():
        for name, text in pages():
            (FOLDER / name).write_text(text, encoding="utf-8")


main()

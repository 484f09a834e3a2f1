"""Writes the screens of the documentation: `make screens`."""

import io
import logging

from rich.console import Console

from guardrails_langchain import demo
from tests.screens.screens import DEMO, FOLDER, a_shop, demo_page, pages


def main() -> None:
    """Replaces the files of all screens."""
    logging.disable()
    for old in FOLDER.glob("*.txt"):
        old.unlink()
    with a_shop():
        for name, text in pages():
            (FOLDER / name).write_text(text, encoding="utf-8")
        logging.disable(logging.NOTSET)  # The demo shows what is logged.
        shown = io.StringIO()
        demo.run(Console(file=shown, width=80, color_system=None))
        DEMO.write_text(demo_page(shown.getvalue()), encoding="utf-8")


main()

"""The README's first example runs as it stands and prints what stands below it."""

import re
import subprocess
import sys
from pathlib import Path

README = Path(__file__).parent.parent / "README.md"
LINES_MAX = 150


def test_the_first_example_prints_its_real_output(tmp_path: Path) -> None:
    """Code and output are taken from the text itself."""
    text = README.read_text(encoding="utf-8")
    code, output = re.findall(r"```(?:python|text)\n(.*?)```", text, re.DOTALL)[:2]
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout == output


def test_the_readme_is_short_and_its_links_lead_somewhere() -> None:
    """At most 150 lines; every relative link names a file that exists."""
    text = README.read_text(encoding="utf-8")
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", text)

    assert len(text.splitlines()) <= LINES_MAX
    assert links
    assert all((README.parent / link).exists() for link in links)

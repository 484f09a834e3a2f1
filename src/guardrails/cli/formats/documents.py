"""Documents: what commands write for programs, as JSON."""

import json
import sys

__all__ = ["document"]


def document(content: object) -> str:
    """Writes JSON, with escapes where standard output could not show all names."""
    encoding = sys.stdout.encoding or ""
    is_narrow = not encoding.lower().startswith("utf")
    return json.dumps(content, indent=2, ensure_ascii=is_narrow)

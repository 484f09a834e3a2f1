"""One process: what belongs to it is neither copied nor pickled."""

from typing import Never, Self

__all__ = ["OfOneProcess"]


class OfOneProcess:
    """Something that counts for all who hold it in its process, and for none elsewhere.

    A second one beside it would share half of what it is.

    Args:
        instead: What to do where somebody wants to take it into another process.
    """

    _instead = ""

    def __init_subclass__(cls, *, instead: str = "", **more: object) -> None:
        super().__init_subclass__(**more)
        cls._instead = instead or cls._instead

    def __copy__(self) -> Self:
        """Returns itself: what holds it may be copied."""
        return self

    def __deepcopy__(self, memo: object) -> Self:
        """Returns itself: what holds it may be copied."""
        return self

    def __reduce__(self) -> Never:
        """Says what to do instead, as an error that those who pickle look for."""
        name = type(self).__name__
        raise TypeError(
            f"pickle: a {name} belongs to the process that made it and cannot be "
            f"pickled. {self._instead}"
        )

"""Things that are chosen by name: a wrong name is answered with the right ones."""

from typing import Any, NoReturn


class Choices(dict):
    """A dict of what there is to choose from; ``choices[name]`` for any other name is a ValueError that lists them."""

    def __init__(self, what: str, entries: dict[str | None, Any]) -> None:
        super().__init__(entries)
        self.what = what

    def allows(self, name: Any) -> bool:
        return isinstance(name, str | None) and name in self

    def __str__(self) -> str:
        return f"one of {', '.join(map(str, self))}"

    def __missing__(self, name: Any) -> NoReturn:
        raise ValueError(f"unknown {self.what} {name!r}: expected {self}")

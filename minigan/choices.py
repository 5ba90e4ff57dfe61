"""Options that are chosen by name: the error for an unknown name lists the known names."""

from typing import Any, NoReturn


class Choices(dict):
    """A dict of options by name; ``choices[name]`` of an unknown name is a ValueError that lists the known names."""

    def __init__(self, what: str, entries: dict[str | None, Any]) -> None:
        super().__init__(entries)
        self.what = what

    def allows(self, name: Any) -> bool:
        return isinstance(name, str | None) and name in self

    def __str__(self) -> str:
        return f"one of {', '.join(map(str, self))}"

    def __missing__(self, name: Any) -> NoReturn:
        raise ValueError(f"unknown {self.what} {name!r}: expected {self}")

"""A bounded place for objects that requests made: the least recently used go first.

Knows counts and sizes; refuses to know what it holds.
"""

from collections import OrderedDict
from typing import Generic, TypeVar

Stored = TypeVar("Stored")

MAX_ITEMS = 1_000
MAX_BYTES = 64 * 1024 * 1024


class Shelf(Generic[Stored]):
    """Objects by id; at most `max_items` and, by the sizes that were told, `max_bytes`."""

    def __init__(self, max_items: int = MAX_ITEMS, max_bytes: int = MAX_BYTES) -> None:
        self._max_items = max_items
        self._max_bytes = max_bytes
        self._held: OrderedDict[str, tuple[int, Stored, int]] = OrderedDict()
        self._serial = 0
        self._bytes = 0

    def __repr__(self) -> str:
        return f"<Shelf {len(self._held)} objects, {self._bytes} bytes>"

    def __len__(self) -> int:
        return len(self._held)

    def put(self, object_id: str, stored: Stored, size_bytes: int = 0) -> None:
        self.take(object_id)
        self._serial += 1
        self._held[object_id] = (self._serial, stored, size_bytes)
        self._bytes += size_bytes
        while len(self._held) > self._max_items or (self._bytes > self._max_bytes and len(self._held) > 1):
            self._bytes -= self._held.popitem(last=False)[1][2]

    def find(self, object_id: str) -> Stored | None:
        if object_id not in self._held:
            return None
        self._held.move_to_end(object_id)
        return self._held[object_id][1]

    def take(self, object_id: str) -> Stored | None:
        """Remove an object and hand it back."""
        held = self._held.pop(object_id, None)
        if held is None:
            return None
        self._bytes -= held[2]
        return held[1]

    def all(self) -> list[Stored]:
        """Every object, in the order in which they were put."""
        return [stored for _, stored, _ in sorted(self._held.values(), key=lambda held: held[0])]

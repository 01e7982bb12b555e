"""What is remembered of secrets: whom each stands for, or that it stands for nobody. Bounded, and pure.

Knows digests only. Nothing here reads a clock or asks anyone; `generation` lets whoever asks tell whether an answer
was overtaken by a change while it was on its way.
"""

from collections import OrderedDict
from collections.abc import Collection

from gateway.call import Principal


class Entry:
    """A digest that stands for someone. `used` is set by each use, and taken back by the search for what to drop."""

    __slots__ = ("digest", "principal", "used")

    def __init__(self, digest: bytes, principal: Principal) -> None:
        self.digest = digest
        self.principal = principal
        self.used = False


class Remembered:
    """At most `max_keys` entries, besides `pinned` ones, and `max_strangers` digests that stand for nobody.

    Full of keys, it drops one that was not used since it was last passed over (CLOCK, which a use costs one store;
    least recently used would cost a reordering). Full of strangers, it drops the oldest.
    """

    def __init__(self, *, max_keys: int, max_strangers: int, stranger_s: float) -> None:
        # Ordered ones: a plain dict looks for its first item past all that were deleted before it.
        self.entries: OrderedDict[bytes, Entry] = OrderedDict()
        self.pinned: set[bytes] = set()
        self.generation = 0
        self._strangers: OrderedDict[bytes, float] = OrderedDict()
        self._max_keys = max_keys
        self._max_strangers = max_strangers
        self._stranger_s = stranger_s

    @property
    def strangers(self) -> int:
        """How many digests are held that stand for nobody."""
        return len(self._strangers)

    def keep(self, digest: bytes, principal: Principal) -> None:
        """`digest` stands for `principal`, until a change."""
        self._strangers.pop(digest, None)
        self.entries[digest] = Entry(digest, principal)
        while len(self.entries) > self._max_keys + len(self.pinned):
            self._drop_one()

    def keep_stranger(self, digest: bytes, now_s: float) -> None:
        """`digest` stands for nobody, until a change or for `stranger_s` seconds."""
        self.entries.pop(digest, None)
        self._strangers.pop(digest, None)
        self._strangers[digest] = now_s + self._stranger_s
        if len(self._strangers) > self._max_strangers:
            self._strangers.popitem(last=False)

    def is_stranger(self, digest: bytes, now_s: float) -> bool:
        """Whether `digest` is known to stand for nobody."""
        until_s = self._strangers.get(digest)
        return until_s is not None and now_s < until_s

    def forget(self, key_ids: Collection[str], team_ids: Collection[str]) -> list[Entry]:
        """Drop what these keys and teams may have changed; the keys among it, for asking again.

        Looks at every entry: a change is rare, a use is not, and an index would weigh as much as the entries.
        """
        self.generation += 1
        self._strangers.clear()
        changed = [
            entry
            for entry in self.entries.values()
            if entry.principal.key_id in key_ids or entry.principal.team_id in team_ids
        ]
        for entry in changed:
            del self.entries[entry.digest]
        return changed

    def forget_all(self) -> None:
        """Drop everything but the pins."""
        self.generation += 1
        self.entries.clear()
        self._strangers.clear()

    def _drop_one(self) -> None:
        digest, entry = self.entries.popitem(last=False)
        if entry.used or digest in self.pinned:
            entry.used = False
            self.entries[digest] = entry

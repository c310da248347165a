"""How many tokens a text will have, foreseen from its characters: refusing must not cost tokenizing."""

from __future__ import annotations

from collections.abc import Sequence

# Of all texts so far the last few hundred count: a replica that is asked in another language learns.
_MEMORY = 300


class TokenEstimate:
    """Tokens a character, learned from what was tokenized. *longest*: tokens the model reads."""

    def __init__(self, *, longest: int) -> None:
        self._longest = longest
        self._chars = self._tokens = 0.0

    def tokens(self, chars: int) -> int:
        """Of a text of so many characters; at least 1, and before anything was learned just that."""
        ratio = self._tokens / self._chars if self._chars else 0.0
        return max(1, min(round(chars * ratio), self._longest))

    def learn(self, chars: Sequence[int], tokens: Sequence[int]) -> None:
        """Texts of so many characters, one at least each, have so many tokens."""
        for given, found in zip(chars, tokens, strict=True):
            if found < self._longest:  # what was cut says nothing of its characters
                self._chars += given - self._chars / _MEMORY
                self._tokens += found - self._tokens / _MEMORY

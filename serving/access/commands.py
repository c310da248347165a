"""`miniml keys create`, `list` and `revoke`."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from rich.console import Group
from rich.table import Table
from rich.text import Text

from serving.access.keys import Key, create_key, default_keys, read_keys, revoke_key
from serving.options import CreateKeyOptions, ListKeysOptions, RevokeKeyOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class NewKey:
    """A key with its secret."""

    key: Key
    secret: str

    def document(self) -> dict[str, object]:
        """With the secret as `secret`, and no hash."""
        return {"secret": self.secret, **_shown(self.key)}

    def __rich__(self) -> Group:
        """The secret alone on its line, to be copied."""
        note = (
            f"The key of {self.key.name!r}; it is shown this once. Send it as authorization: Bearer"
        )
        return Group(Text(note), Text(self.secret, style="bold"))


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyList:
    """All keys of a file."""

    keys: tuple[Key, ...]

    def document(self) -> dict[str, object]:
        """Without hashes."""
        return {"keys": [_shown(key) for key in self.keys]}

    def __rich__(self) -> Table:
        """A row a key."""
        table = Table(box=None)
        for title in ("name", "id", "texts/s", "texts/day", "admin", "created"):
            table.add_column(title)
        for key in self.keys:
            limits = (key.texts_per_s, key.texts_per_day)
            shown = ["" if limit is None else f"{limit:,}" for limit in limits]
            admin = "yes" if key.admin else ""
            table.add_row(key.name, key.id, *shown, admin, key.created_at)
        return table


@dataclass(frozen=True, slots=True, kw_only=True)
class RevokedKey:
    """The key that is none any more."""

    key: Key

    def document(self) -> dict[str, object]:
        """Without its hash."""
        return {"revoked": _shown(self.key)}

    def __rich__(self) -> Text:
        """One sentence."""
        return Text(f"The key of {self.key.name!r} is none any more.")


def create(options: CreateKeyOptions) -> NewKey:
    """Raises `KeyProblem`."""
    key, secret = create_key(
        options.keys or default_keys(),
        options.name,
        texts_per_s=options.texts_per_s,
        texts_per_day=options.texts_per_day,
        admin=options.admin,
    )
    return NewKey(key=key, secret=secret)


def list_all(options: ListKeysOptions) -> KeyList:
    """Raises `KeyProblem`."""
    return KeyList(keys=read_keys(options.keys or default_keys()))


def revoke(options: RevokeKeyOptions) -> RevokedKey:
    """Raises `KeyProblem`."""
    return RevokedKey(key=revoke_key(options.keys or default_keys(), options.name))


def _shown(key: Key) -> dict[str, object]:
    return {name: value for name, value in asdict(key).items() if name != "digest"}

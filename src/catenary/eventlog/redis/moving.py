"""Moving logs to other servers: from one Redis to several, or to one more."""

from __future__ import annotations

import re
from collections.abc import Iterator

from catenary.errors import ConfigError
from catenary.eventlog.model import Retention
from catenary.eventlog.redis.address import Address
from catenary.eventlog.redis.keys import Keys
from catenary.eventlog.redis.link import Link
from catenary.eventlog.redis.marks import MOVING, marks_of, set_marks
from catenary.eventlog.redis.scripts import Rules
from catenary.eventlog.redis.store import Store

_AT_ONCE = 200
_BUCKET = re.compile(rb"\{(\d+)\}")


def move(source: Address, target: Address) -> int:
    """
    Move every key whose bucket lies on another server of ``target``; return how many moved.

    Nobody may have the log open meanwhile: both refuse to be opened until it
    is done. If it fails, call it again with the same addresses. Terms begin
    anew where the Redis process is another one, so readers are told by a gap.

    Raises:
        ConfigError: If a process has the log open, or the key prefixes differ.
        LogUnavailable: If a server does not answer; what was moved stays moved.
    """
    if source.key_prefix != target.key_prefix:
        raise ConfigError("the key_prefix= of the two URLs must be the same")
    keys = Keys(source.key_prefix)
    rules = Rules(retention=Retention())
    old, new = Store(source, rules), Store(target, rules)
    try:
        _refuse_living(old, keys)
        _refuse_living(new, keys)
        set_marks([*old.links(), *new.links()], keys, MOVING)
        count = sum(_move_from(link, new, keys) for link in old.links())
        _open_again(old, new, keys)
        return count
    finally:
        old.close()
        new.close()


def _refuse_living(store: Store, keys: Keys) -> None:
    seconds, microseconds = store.command(0, "TIME")
    now = int(seconds) * 1000 + int(microseconds) // 1000
    count = int(store.command(0, "ZCOUNT", keys.leases, now, "+inf"))
    if count:
        raise ConfigError(
            f"{store.address.shown} is open in {count} processes. Stop every node first; one that "
            "was killed counts for 15 s more"
        )


def _open_again(old: Store, new: Store, keys: Keys) -> None:
    is_marked = new.servers.is_spread and not new.servers.is_cluster
    marked = dict(marks_of(new)) if is_marked else {}
    for link, mark in marked.items():
        set_marks([link], keys, mark)
    # The new servers first: broken off here, the old ones still refuse.
    named = {link.server for link in marked}
    for link in (*new.links(), *old.links()):
        if link.server not in named:
            link.command("DEL", keys.mark)


def _move_from(link: Link, new: Store, keys: Keys) -> int:
    count = 0
    for names in _moving(link, new, keys):
        asked = [command for name in names for command in (("PTTL", name), ("DUMP", name))]
        answers = list(map(link.checked, link.commands(asked)))
        for name, life, dump in zip(names, answers[::2], answers[1::2], strict=True):
            if dump is not None:
                target = new.link(_bucket_of(name))
                target.command("RESTORE", name, max(0, life), dump, "REPLACE")
                count += 1
        # Only now: what a failure leaves in both places is moved again.
        link.command("DEL", *names)
    return count


def _moving(link: Link, new: Store, keys: Keys) -> Iterator[list[bytes]]:
    cursor = b"0"
    while True:
        cursor, found = link.command("SCAN", cursor, "MATCH", keys.every, "COUNT", _AT_ONCE)
        names = [name for name in found if new.servers.of(_bucket_of(name)) != link.server]
        if names:
            yield names
        if cursor == b"0":
            return


def _bucket_of(name: bytes) -> int:
    found = _BUCKET.search(name)
    assert found is not None, name
    return int(found[1])

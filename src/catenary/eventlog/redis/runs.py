"""What Redis knows of runs."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from catenary.eventlog.model import RunInfo
from catenary.eventlog.shared.runs import Cancel, RunStart, StoredRun
from catenary.grammar import OpenTool

_decode_tools = msgspec.msgpack.Decoder(dict[str, tuple[str, int]]).decode


META_FIELDS = "olx"
RUN_FIELDS = "iextf"
"""The kinds of fields that tell of a run, in a log's meta and in its runs; see prelude.lua."""


_decode_start = msgspec.json.Decoder(RunStart).decode
_decode_cancel = msgspec.json.Decoder(Cancel).decode


def cancel_of(packed: bytes) -> Cancel:
    """Return when a cancel was asked for, why, and by whom."""
    cancel: Cancel = _decode_cancel(packed)
    return cancel


def fields_of(answer: list[bytes]) -> dict[bytes, bytes]:
    """Return a hash as Redis answers it."""
    return dict(zip(answer[::2], answer[1::2], strict=True))


def stored_runs(
    log_id: str, meta: dict[bytes, bytes], runs: dict[bytes, bytes]
) -> Iterator[StoredRun]:
    """Return the runs of a log, oldest first."""
    found = [
        stored_run(log_id, field[2:].decode(), meta, runs)
        for field in runs
        if field.startswith(b"i:")
    ]
    return iter(sorted(found, key=lambda run: run.info.first_seq))


def stored_run(
    log_id: str, run_id: str, meta: dict[bytes, bytes], runs: dict[bytes, bytes]
) -> StoredRun:
    """Return one run of a log that is known."""

    def of(fields: dict[bytes, bytes], kind: str) -> bytes | None:
        return fields.get(f"{kind}:{run_id}".encode())

    first, _, packed = (of(runs, "i") or b"").partition(b" ")
    start = _decode_start(packed)
    held, end, cancel, tools = of(meta, "o"), of(runs, "e"), of(runs, "x"), of(runs, "t")
    last_seq, last_at, end_type = int(first), start.started_at, None
    if end is not None:
        name, *numbers = end.split()
        end_type = name.decode() or None
        last_seq, last_at = map(int, numbers)
    elif (last := of(meta, "l")) is not None:
        last_seq, last_at = map(int, last.split())
    asked = cancel_of(cancel) if cancel is not None else None
    info = RunInfo(
        log_id=log_id,
        run_id=run_id,
        thread_id=start.thread_id,
        agent_name=start.agent_name,
        parent_run_id=start.parent_run_id,
        is_open=held is not None,
        holder=held.split(b" ", 1)[1].decode() if held is not None else "",
        first_seq=int(first),
        last_seq=last_seq,
        started_at=start.started_at,
        last_at=last_at,
        lease=start.lease,
        cancel_requested_at=asked[0] if asked is not None else None,
        end_type=None if end_type == "-" else end_type,
        kept_fold=of(runs, "f"),
    )
    return StoredRun(info, start.user_id, _tools(tools), asked)


def _tools(packed: bytes | None) -> dict[str, OpenTool]:
    if packed is None:
        return {}
    return {call: OpenTool(*tool) for call, tool in _decode_tools(packed).items()}

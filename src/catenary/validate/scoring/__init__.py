"""Scores of what users see: the content of events, their timing, and silences. Pure."""

from catenary.validate.scoring.content import ContentScore, content_score
from catenary.validate.scoring.received import Received, received_events
from catenary.validate.scoring.silence import SILENCE_LIMIT, Silence, run_silences, user_silences
from catenary.validate.scoring.summary import RunScore, UserScore, WeakEvent, score_users
from catenary.validate.scoring.timing import RunTiming, run_timing

__all__ = [
    "SILENCE_LIMIT",
    "ContentScore",
    "Received",
    "RunScore",
    "RunTiming",
    "Silence",
    "UserScore",
    "WeakEvent",
    "content_score",
    "received_events",
    "run_silences",
    "run_timing",
    "score_users",
    "user_silences",
]

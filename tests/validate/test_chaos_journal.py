"""The journal of what a network did."""

from __future__ import annotations

from catenary.validate.chaos import Action, Entry, Incident, Journal
from catenary.validate.chaos.journal import ENTRIES_KEPT


def test_a_journal_keeps_the_first_entries_and_counts_all() -> None:
    """So the memory of a long campaign stays bounded."""
    journal = Journal()
    for number in range(ENTRIES_KEPT + 10):
        journal.note(Entry(0.0, number, Incident.CUT))
    assert len(journal.entries) == ENTRIES_KEPT
    assert journal.count(Incident.CUT) == ENTRIES_KEPT + 10


def test_what_is_done_to_all_does_not_count_as_done_to_one() -> None:
    """Their words are the same."""
    journal = Journal()
    journal.note(Entry(0.0, None, Action.CUT))
    journal.note(Entry(0.1, 1, Incident.CUT))
    journal.note(Entry(0.2, 2, Incident.RESET))
    assert journal.count(Incident.CUT) == 1
    assert journal.count(Incident.CUT, Incident.RESET, Incident.LOST) == 2

"""
The networks that people carry about: what they are like, and what befalls them.

Each profile says where its figures come from. What no public source was found
for was chosen to be plausible and hard, and says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import msgspec

from catenary.validate.chaos.faults import Faults, Seed
from catenary.validate.chaos.script import Action, Interruption, Script, interruptions


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """A kind of network. Play ``script`` on a proxy that has ``faults``."""

    name: str
    description: str
    source: str
    """Where the figures come from."""
    faults: Faults
    interruptions: tuple[Interruption, ...] = ()

    def script(self, seed: Seed, duration: float) -> Script:
        """
        Return what befalls the network in so many seconds.

        Every kind of interruption comes at least once, shortened if the
        duration is short; none outlasts the script, and after the last one
        there is time to recover.
        """
        return interruptions(duration, self.interruptions, seed=f"{seed} {self.name}")


_LOST_FOR_A_WHILE = Interruption(
    begins=(Action.STALL,), ends=(Action.GO_ON,), every=60, lasts=(5, 20)
)
"""The radio is away and comes back with the same address: what was under way goes on."""

_BACK_ELSEWHERE = Interruption(
    begins=(Action.HALF_OPEN, Action.REFUSE),
    ends=(Action.CHANGE_ADDRESS, Action.ACCEPT),
    every=120,
    lasts=(5, 20),
)
"""The radio is away and comes back with another address: what was open is dead."""

_ANOTHER_CELL = Interruption(begins=(Action.CHANGE_ADDRESS,), every=60)

_OUT_OF_SIGHT = Interruption(
    begins=(Action.HALF_OPEN, Action.REFUSE), ends=(Action.ACCEPT,), every=120, lasts=(5, 30)
)

_WEBPAGETEST = "WebPageTest's connectivity profiles"

_ALL = (
    Profile(
        name="3g",
        description="A phone on 3G: 1.6 Mbit/s down, 768 kbit/s up, 300 ms there and back.",
        source=f"{_WEBPAGETEST}, '3G'. They have no jitter and no loss; both are chosen.",
        faults=Faults(
            delay=0.15,
            jitter=0.05,
            bytes_per_second=200_000,
            bytes_per_second_up=96_000,
            loss=0.01,
            retransmit=0.5,
        ),
    ),
    Profile(
        name="4g",
        description="A phone on LTE: 12 Mbit/s both ways, 70 ms there and back.",
        source=f"{_WEBPAGETEST}, 'LTE'. They have no jitter and no loss; both are chosen.",
        faults=Faults(delay=0.035, jitter=0.015, bytes_per_second=1_500_000, loss=0.002),
    ),
    Profile(
        name="lift",
        description="A phone on 4G in a lift: the network is lost, and is back at another floor.",
        source=(
            f"The link: {_WEBPAGETEST}, '4G' (9 Mbit/s, 170 ms there and back). No source was "
            "found for how long lifts lose the network; 5 to 20 s are chosen, in which a lift "
            "rises a few floors."
        ),
        faults=Faults(
            delay=0.085, jitter=0.04, bytes_per_second=1_125_000, loss=0.01, retransmit=0.4
        ),
        interruptions=(_LOST_FOR_A_WHILE, _BACK_ELSEWHERE),
    ),
    Profile(
        name="train",
        description="A phone on LTE in a train: tunnels, and changes of address between cells.",
        source=(
            f"Bandwidth and delay: {_WEBPAGETEST}, 'LTE'. That delay varies much more and loss "
            "is much higher at speed, mostly by handovers, is measured in Wang et al., 'An "
            "Active-Passive Measurement Study of TCP Performance over LTE on High-speed Rails' "
            "(2018). By how much here, and how long tunnels last, is chosen."
        ),
        faults=Faults(
            delay=0.035, jitter=0.15, bytes_per_second=1_500_000, loss=0.03, retransmit=0.4
        ),
        interruptions=(_LOST_FOR_A_WHILE, _ANOTHER_CELL),
    ),
    Profile(
        name="ferry",
        description="A ship's Wi-Fi over a geostationary satellite that is out of sight at times.",
        source=(
            "Delay: RFC 2488, section 2: up to 279 ms for one hop, 558 ms there and back. "
            "Retransmission: the least of RFC 6298, 1 s. No source was found for a ferry's "
            "share of the bandwidth, its losses and how long it loses the satellite; they "
            "are chosen."
        ),
        faults=Faults(
            delay=0.279,
            jitter=0.05,
            bytes_per_second=250_000,
            bytes_per_second_up=64_000,
            loss=0.02,
            retransmit=1.0,
        ),
        interruptions=(_OUT_OF_SIGHT,),
    ),
)

PROFILES: Mapping[str, Profile] = MappingProxyType({profile.name: profile for profile in _ALL})
"""The profiles by name: ``3g``, ``4g``, ``lift``, ``train``, ``ferry``."""

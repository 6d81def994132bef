"""What a verified token must say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from catenary.auth.identity import Identity
from catenary.errors import AuthError

# Past this no date is meant, and arithmetic on huge integers would raise.
_LATEST = 1e12


@dataclass(frozen=True, kw_only=True)
class ClaimRules:
    """
    Which claims a token needs, and which values are taken.

    ``audience`` and ``issuer`` are the accepted values; empty means that the
    claim is not looked at. ``leeway`` and ``max_lifetime`` are seconds.
    """

    audience: frozenset[str]
    issuer: frozenset[str]
    leeway: float
    max_lifetime: float

    def identity(self, claims: Mapping[str, Any], now: float) -> Identity:
        """
        The identity in the claims of a token whose signature holds.

        Raises:
            AuthError: ``expired``, ``lifetime``, ``audience``, ``issuer`` or
                ``claims``.
        """
        expires_at = self._expiry(claims, now)
        self._check_audience(claims.get("aud"))
        self._check_issuer(claims.get("iss"))
        return Identity(
            user_id=_text(claims, "sub"),
            session_id=_text(claims, "sid") if claims.get("sid") is not None else None,
            expires_at=expires_at,
            groups=_texts(claims, "groups"),
            claims=claims,
        )

    def _expiry(self, claims: Mapping[str, Any], now: float) -> float:
        expires_at = _seconds(claims, "exp")
        if expires_at is None:
            raise AuthError("the token has no exp claim; it is required", reason="claims")
        if expires_at <= now - self.leeway:
            raise AuthError("the token has expired", reason="expired")
        issued_at, not_before = _seconds(claims, "iat"), _seconds(claims, "nbf")
        for start in (issued_at, not_before):
            if start is not None and start > now + self.leeway:
                raise AuthError("the token is not valid yet (nbf, iat)", reason="claims")
        # Without iat the issuer's clock is compared with ours, so the leeway counts.
        begins = now + self.leeway if issued_at is None else issued_at
        if expires_at - begins > self.max_lifetime:
            raise AuthError(
                f"the token lives longer than the {self.max_lifetime:.0f} s allowed here",
                reason="lifetime",
            )
        return expires_at

    def _check_audience(self, claimed: object) -> None:
        if not self.audience:
            return
        names = claimed if isinstance(claimed, list) else [claimed]
        if not any(isinstance(name, str) and name in self.audience for name in names):
            raise AuthError("the token is for another audience", reason="audience")

    def _check_issuer(self, claimed: object) -> None:
        if self.issuer and not (isinstance(claimed, str) and claimed in self.issuer):
            raise AuthError("the token is from another issuer", reason="issuer")


def accepted(names: str | Sequence[str] | None) -> frozenset[str]:
    """The accepted values of a claim, as one set."""
    if names is None:
        return frozenset()
    return frozenset([names] if isinstance(names, str) else names)


def _seconds(claims: Mapping[str, Any], name: str) -> float | None:
    value = claims.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > _LATEST:
        raise AuthError(f"the token's {name} claim is not a number of seconds", reason="claims")
    return float(value)


def _text(claims: Mapping[str, Any], name: str) -> str:
    value = claims.get(name)
    if not isinstance(value, str):
        raise AuthError(f"the token's {name} claim is missing or not a text", reason="claims")
    return value


def _texts(claims: Mapping[str, Any], name: str) -> tuple[str, ...]:
    values = claims.get(name)
    if values is None:
        return ()
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise AuthError(f"the token's {name} claim is not a list of texts", reason="claims")
    return tuple(values)

"""
Who is this: tokens, tickets, cookies, origins, and an application's own way.

Loading this package loads neither a web server nor cryptography; a
:class:`JwtVerifier` loads cryptography when it is made.
"""

from catenary.auth.authenticator import Authenticator
from catenary.auth.credentials import Credential, Source, find_credentials
from catenary.auth.identity import (
    Authenticate,
    AuthorizeLog,
    AuthorizeThread,
    Identity,
    LogAccess,
    authorize_log,
    authorize_thread,
    granted_access,
    may_use_thread,
)
from catenary.auth.origins import Origins, Standing
from catenary.auth.tokens import JwtVerifier, sign_token

__all__ = [
    "Authenticate",
    "Authenticator",
    "AuthorizeLog",
    "AuthorizeThread",
    "Credential",
    "Identity",
    "JwtVerifier",
    "LogAccess",
    "Origins",
    "Source",
    "Standing",
    "authorize_log",
    "authorize_thread",
    "find_credentials",
    "granted_access",
    "may_use_thread",
    "sign_token",
]

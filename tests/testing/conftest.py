"""The fixtures of the plugin, as a user's conftest brings them."""

from catenary.testing import *  # noqa: F403 - fixtures are found by their names here

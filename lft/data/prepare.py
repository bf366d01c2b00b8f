"""The data stage: from settings to prepared tokens, found in the cache or made now by all ranks together."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    pass

"""What one shard of tokens holds: an Arrow stream of one row for each row kept, and the block's counts in its schema."""

import json
from dataclasses import asdict, dataclass

import pyarrow as pa

VERSION = 2
"""Part of the cache key: raise it when the same rows would become other tokens, or shards another form."""

IGNORED = -100
"""The label of a token that is not trained, as in torch.nn.functional.cross_entropy."""

CUT, END_TRAINED, BEGIN_DOUBLED, MASKED = 1, 2, 4, 8
"""Flags: the row was longer than max_length; its end token is trained; it begins with two begin tokens; nothing is trained."""

SCHEMA = pa.schema(
    {
        "input_ids": pa.list_(pa.int32()),
        "labels": pa.list_(pa.int32()),
        "trained": pa.int32(),  # number of labels
        "answer_from": pa.int32(),  # the position at which the last answer begins; 0 for plain text
        "content": pa.uint64(),  # xxh3 of all turns: which side of the split the row is on
        "prompt": pa.uint64(),  # xxh3 of the turns before the completion
        "file": pa.int32(),
        "where": pa.int64(),  # as in Source.read
        "flags": pa.uint8(),
        "whole": pa.int32(),  # tokens before the row was cut at max_length
    }
)


@dataclass(frozen=True, slots=True)
class BlockCounts:
    """What became of the rows of one block."""

    rows: int
    """Rows read, bad ones and empty ones too."""
    kept: int
    """Rows in the shard, masked ones too."""
    empty: int
    """Rows without text or answer."""
    bad: tuple[tuple[int, int, str], ...] = ()
    """File, where and what is wrong of each row left out by on_bad_row: skip."""
    masked: int = 0
    """Rows in the shard whose completion lies wholly behind max_length: flagged MASKED, never trained."""
    digest: str = ""
    """Of the block's bytes."""

    def to_json(self) -> bytes:
        """For the schema of the block's shard; the same bytes for the same counts."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def from_json(cls, text: bytes) -> "BlockCounts":
        """What `to_json` wrote."""
        values = json.loads(text)
        return cls(**values | {"bad": tuple(tuple(row) for row in values["bad"])})

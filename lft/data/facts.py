"""What the plan may know of the data in milliseconds: only where tokens have been made, and nothing has to be made for it."""

from lft.core.paths import local_files, looks_local
from lft.core.rows import PreparedFacts
from lft.core.settings import RunSettings
from lft.data.cache import usable_cache
from lft.data.packing import pack
from lft.data.prepare import find_prepared
from lft.data.spool import needs_spool


def prepared_facts(settings: RunSettings) -> PreparedFacts | None:
    """The facts, or None where the data has not been prepared. Raises DataError for data that cannot be used."""
    data = settings.data
    if not all(map(looks_local, data.source_names)):
        return None  # the Hub would have to be asked
    if any(needs_spool(path, usable_cache()) for path in local_files(data.source_names)):
        return None
    prepared = find_prepared(settings.model, data)
    if prepared is None:
        return None
    rows = prepared.training
    items = len(pack(rows.lengths, prepared.manifest.max_length, settings.training.seed)) if data.packing else len(rows)
    share = float(rows.column("trained").sum()) / max(float(rows.lengths.sum()), 1.0)
    return PreparedFacts(len(rows), len(prepared.held_out), items, share)

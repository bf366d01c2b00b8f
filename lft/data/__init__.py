"""From files to token shards: what every rank does before torch, a model or a process group is needed."""

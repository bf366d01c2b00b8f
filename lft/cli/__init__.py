"""Words in, words out: Click commands and Rich output.

Before any module of it is imported, a verb that starts ranks listens for stop signals.
"""

import sys

from lft.core.stop_signals import early_stop

if {"launch", "resume", "benchmark"} & set(sys.argv[1:2]):
    early_stop.listen()  # importing and planning take from half a second to many

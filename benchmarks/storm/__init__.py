"""The storm: workers and brokers fail on a schedule under load, and a judge reads what is left.

- `faults`: what goes wrong and when, from a seed.
- `traffic`: the events, and the brokers' receipts for them.
- `workers`, `proxy`, `network`: processes that a storm ends, freezes and cuts off.
- `run`: one storm from beginning to end.
- `judge`, `reading`: what is right, from topics alone.
- `case`: the benchmark.
"""

from benchmarks.storm.case import command

__all__ = ["command"]

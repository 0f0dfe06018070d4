"""The process around the app: Faust's, which starts it, takes signals, and ends."""

import asyncio
from typing import Any

from faust.worker import Worker


class Runner(Worker):
    """Faust's worker process, that ends as soon as its services have.

    Faust's waits up to a second for tasks that nothing will end, and then a second for nothing: a worker that comes
    back under its name would be missed for so much longer.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.spinner = None  # it draws over the log, and has debug lines made for it

    def _gather_all(self) -> None:
        tasks = asyncio.all_tasks(self.loop)
        for task in tasks:
            task.cancel()
        self.loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))

    async def _sentinel_task(self) -> None:
        """Let callbacks run that are due."""
        await asyncio.sleep(0)

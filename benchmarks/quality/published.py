"""Lists that others published for the same cases, judged with the same metrics."""

import csv
import gzip
from pathlib import Path

import numpy as np

from benchmarks.quality.sets import Judged
from mmrec_stream.evaluation.metrics import Lists


def published_lists(folder: Path, judged: Judged) -> dict[str, Lists]:
    """The top 50 of session-rec's AR, SR, GRU4Rec and VSKNN for the YooChoose test cases, by method name."""
    numbers = {item: row for row, item in enumerate(judged.dataset.item_ids)}
    ids = judged.dataset.user_ids
    cases = {
        (ids[user].removeprefix("test-"), length - 1): case
        for case, (user, length) in enumerate(zip(judged.split.test.users, judged.split.test.lengths, strict=True))
    }
    found: dict[str, Lists] = {}
    for path in sorted((folder / "yoochoose_100k_clicks").glob("peer_recoms_*.csv.gz")):
        lists = np.full((len(cases), 50), -1, dtype=np.int32)
        with gzip.open(path, "rt", encoding="utf-8", newline="") as lines:
            for line in csv.DictReader(lines, delimiter=";"):
                case = cases.get((line["SessionId"], int(line["Position"])))
                if case is not None:
                    items = [numbers[item] for item in line["Recommendations"].split(",")]
                    lists[case, : len(items)] = items
        found[f"{path.name.split('_')[-1].removesuffix('.csv.gz')} (published lists)"] = lists
    return found

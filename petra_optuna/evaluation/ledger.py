"""What one evaluation spent on training, what it was spared, and whether it needed a repair."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass
class TrainingLedger:
    """Counters of one evaluation, filled while it runs, so that a stopped one has them too.

    Attributes:
        cache_hits: Nodes whose result came from the prefix cache.
        cache_misses: Nodes that were computed although there is a cache.
        cache_saved_s: Seconds of training that the cached nodes once took.
        cache_healed: Damaged entries that were removed.
        preview_stops: 1 where the preview stopped the pipeline.
        rung_stops: 1 where a rung stopped it.
        saved_epochs: Epochs of the allotment that were not trained because of a stop.
        repairs: 1 where a repair was tried for a file beyond the limit on quality, with whatever result.
        repairs_within: 1 where that brought it within the limit.
        train_s: Seconds that training nodes took here, a stopped one's included, without judging.
        judging_s: Seconds that judging at rungs took.
    """

    cache_hits: int = 0
    cache_misses: int = 0
    cache_saved_s: float = 0.0
    cache_healed: int = 0
    preview_stops: int = 0
    rung_stops: int = 0
    saved_epochs: float = 0.0
    repairs: int = 0
    repairs_within: int = 0
    train_s: float = 0.0
    judging_s: float = 0.0

"""Training operations of a study's candidates, kept within a limit."""

from __future__ import annotations

from budgetnet.common.errors import InputError
from budgetnet.common.formatting import enough_petaflops
from budgetnet.runs.training_cost import operations, training_flops
from budgetnet.study.trial_store import Candidate, Key, TrialStore


class Operations:
    """Training operations of a study's candidates, and the limit on their sum."""

    def __init__(self, store: TrialStore, *, limit: float | None, images: int) -> None:
        """Read the operations of the candidates trained so far.

        Args:
            store: trials of the study.
            limit: most operations of all candidates together, in PFLOP. Default: unlimited.
            images: number of training images.

        Raises:
            InputError: there is a limit, but not all trials have their operations.
        """
        self._store, self._limit, self._images = store, limit, images
        self._most: dict[Key, int] = {}
        """Operations that candidates in training use if they are not pruned."""
        self.refused: int | None = None
        """Operations that the candidate refused last would have needed."""
        unknown = [trial.number for trial in store.results.values() if "train_flops" not in trial.user_attrs]
        if limit is not None and unknown:
            raise InputError("max_train_flops", limit, f"trial #{unknown[0]} of the study has no training operations")

    def allow(self, candidate: Candidate) -> bool:
        """Return whether a candidate can be trained within the limit, even if no candidate in training is pruned.

        A resumed candidate is counted whole, with what it used before it was interrupted.

        Raises:
            InputError: it cannot, and no candidate of the study has been trained.
        """
        if self._limit is None:
            return True
        needed = training_flops(candidate.verdict.spec, candidate.recipe, images=self._images)
        in_training = sum(self._most[key] for key in self._store.running)
        if self._store.train_flops + in_training + needed <= operations(self._limit):
            self._most[candidate.key] = needed
            return True
        if not self._store.trained and not self._store.running:
            rule = f"the first candidate needs {enough_petaflops(needed)} PFLOP"
            raise InputError("max_train_flops", self._limit, rule)
        self.refused = needed
        return False

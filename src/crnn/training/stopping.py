"""When a run has learnt what it can: the best validation so far, and how many have passed since."""

from __future__ import annotations

from dataclasses import dataclass

from crnn.training.validation import Validation


@dataclass
class Best:
    """The best validation of a run. ``since``: validations in a row that were no better than it.

    ``accuracy`` and ``ned`` (1-NED) are those of all validation words together, below 0 before there was one.
    """

    accuracy: float = -1.0
    ned: float = -1.0
    step: int = 0
    since: int = 0

    def note(self, validation: Validation, step: int) -> bool:
        """Takes in the validation after ``step``; whether it is better than all before it.

        That is one of higher accuracy, or of the same accuracy and a higher 1-NED.
        """
        if not validation.sets:
            return False
        _, accuracy, ned = validation.sets[-1]
        if (accuracy, ned) <= (self.accuracy, self.ned):
            self.since += 1
            return False
        self.accuracy, self.ned, self.step, self.since = accuracy, ned, step, 0
        return True

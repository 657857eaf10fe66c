"""How an answer is decoded: settings alone, which a command line reads without a model."""

import math
from dataclasses import asdict, dataclass, replace


@dataclass(frozen=True)
class Generation:
    """How an answer is decoded."""

    max_new_tokens: int = 1024
    temperature: float = 0.0
    """0 is greedy; the released VTimeLLM evaluation samples at 0.05."""
    merge_spatial: bool = False
    """Without effect: a finished run answers with its spatial expert in the weights. Older configs may have it."""
    one_prompt: bool = False
    """Ask for the option and the moment of a ``grounded_qa`` query at once, not in two turns."""

    def __post_init__(self):
        if isinstance(self.max_new_tokens, bool) or not isinstance(self.max_new_tokens, int) or self.max_new_tokens < 1:
            raise ValueError(f"max_new_tokens must be a whole number of 1 or more, got {self.max_new_tokens!r}")
        if not isinstance(self.temperature, (int, float)) or not 0 <= self.temperature < math.inf:
            raise ValueError(f"temperature must be 0 (greedy) or a positive number, got {self.temperature!r}")

    def settings(self) -> dict:
        """As ``VideoLLM.generate`` takes them."""
        sampling = {"do_sample": True, "temperature": self.temperature, "top_p": 1.0, "top_k": 0}
        more = sampling if self.temperature > 0 else {"do_sample": False}
        return {"max_new_tokens": self.max_new_tokens, **more}


@dataclass(frozen=True)
class GenerationChange:
    """What is decoded differently from how a model was trained to be asked; None: as it was."""

    max_new_tokens: int | None = None
    temperature: float | None = None
    """0 is greedy."""
    merge_spatial: bool | None = None
    """Without effect, as above."""
    one_prompt: bool | None = None

    def of(self, stored: Generation) -> Generation:
        """The decoding that comes of it."""
        return replace(stored, **{key: value for key, value in asdict(self).items() if value is not None})

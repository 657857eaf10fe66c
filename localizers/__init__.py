"""How a model says when. Configs name localizers as ``localizers.TextTimestamps``."""

from localizers.digit_tokens import DigitTokens
from localizers.evidence_tokens import EvidenceTokens
from localizers.frame_matching import FrameMatching
from localizers.sentence_matching import SentenceMatching
from localizers.structural_tokens import StructuralTokens
from localizers.temporal_expert import TemporalExpert
from localizers.text_seconds import TextSeconds
from localizers.text_timestamps import TextTimestamps
from localizers.time_distribution import TimeDistribution
from localizers.time_tokens import TimeTokens

__all__ = [
    "DigitTokens",
    "EvidenceTokens",
    "FrameMatching",
    "SentenceMatching",
    "StructuralTokens",
    "TemporalExpert",
    "TextSeconds",
    "TextTimestamps",
    "TimeDistribution",
    "TimeTokens",
]

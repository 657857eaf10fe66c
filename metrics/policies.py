"""How strict a score is: as it should be, or as the official evaluator is."""

POLICIES = ("sound", "official")


def check_policy(policy: str) -> str:
    """Return ``policy``, or raise ValueError where it is not one of ``POLICIES``."""
    if policy not in POLICIES:
        raise ValueError(f"unknown policy {policy!r}; use one of {', '.join(POLICIES)}")
    return policy

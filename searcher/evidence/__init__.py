"""Decide which differences between functions are real, from trainings with several seeds. This package reads no store
and no files.

`compare` judges functions under one task configuration, `across` under several, and `sequential.review` while seeds are
still being added. `verdicts` writes the results as sentences. docs/evidence.md explains each quantity.
"""

from searcher.evidence.across import Across, Ranks, across
from searcher.evidence.estimates import Interval, Summary
from searcher.evidence.paired import Comparison, Equivalence, Evidence, Superiority, Verdict, compare
from searcher.evidence.ranking import Ranked, ranked
from searcher.evidence.samples import EvidenceError, Samples
from searcher.evidence.sequential import Plan, Review, review
from searcher.evidence.verdicts import conclusion, limits, remarks, sentence

__all__ = [
    "Across",
    "Comparison",
    "Equivalence",
    "Evidence",
    "EvidenceError",
    "Interval",
    "Plan",
    "Ranked",
    "Ranks",
    "Review",
    "Samples",
    "Summary",
    "Superiority",
    "Verdict",
    "across",
    "compare",
    "conclusion",
    "limits",
    "ranked",
    "remarks",
    "review",
    "sentence",
]

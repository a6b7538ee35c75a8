"""What the nodes of a job say of themselves, side by side. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hpcframe.launch.checks.finding import Finding

SILENT = Finding("FAIL", "no answer")
FEW = 4  # nodes are named; more of them, if they are most, are counted


@dataclass(frozen=True)
class Group:
    """Nodes that found the same.

    Attributes:
        finding: that of the first of them.
        nodes: their names.
    """

    finding: Finding
    nodes: tuple[str, ...]


@dataclass(frozen=True)
class Comparison:
    """One check on all nodes.

    Attributes:
        title: of the check.
        groups: the largest first.
    """

    title: str
    groups: tuple[Group, ...]

    @property
    def status(self) -> str:
        """FAIL where a node failed, else DIFF where nodes differ, else what all say."""
        statuses = {group.finding.status for group in self.groups}
        if "FAIL" in statuses:
            return "FAIL"
        return "DIFF" if len(self.groups) > 1 else self.groups[0].finding.status

    @property
    def remedy(self) -> str:
        """Of a node that failed, else of one of the largest group that has any."""
        ordered = sorted(self.groups, key=lambda group: group.finding.status != "FAIL")
        return next((group.finding.remedy for group in ordered if group.finding.remedy), "")

    def in_words(self) -> str:
        """Which nodes say what. Not collective."""
        largest = self.groups[0]
        if len(self.groups) == 1:
            number = len(largest.nodes)
            return f"{'all ' if number > 1 else ''}{number} node{'s'[: number > 1]}: {largest.finding.found}"
        few = len(largest.nodes) <= FEW
        most = ", ".join(largest.nodes) if few else f"{len(largest.nodes)} nodes"
        names = [most, *(", ".join(group.nodes) for group in self.groups[1:])]
        return "; ".join(f"{who}: {self._said(group.finding)}" for who, group in zip(names, self.groups, strict=True))

    def _said(self, finding: Finding) -> str:
        """With its status, where nodes differ in that."""
        alike = len({group.finding.status for group in self.groups}) == 1
        return finding.found if alike else f"{finding.status} {finding.found}"


def compare(titles: Sequence[str], answers: Mapping[str, Mapping[str, Finding]]) -> list[Comparison]:
    """Compare checks of several nodes. Not collective.

    Args:
        titles: of the checks.
        answers: findings by node and title. What is missing is a FAIL, "no answer".
    """
    return [
        Comparison(title, _groups({node: of.get(title, SILENT) for node, of in answers.items()})) for title in titles
    ]


def _groups(findings: Mapping[str, Finding]) -> tuple[Group, ...]:
    alike: dict[tuple[str, str], list[str]] = {}
    for node, finding in findings.items():
        alike.setdefault((finding.status, finding.found), []).append(node)
    groups = [Group(findings[nodes[0]], tuple(nodes)) for nodes in alike.values()]
    return tuple(sorted(groups, key=lambda group: -len(group.nodes)))  # as they came, where equally many

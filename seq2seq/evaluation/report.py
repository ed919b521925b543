"""A benchmark's report as plain text: aligned columns, no colour, the same on a terminal and in a file."""

from __future__ import annotations

from collections.abc import Sequence

from seq2seq.evaluation.benchmark import BenchmarkReport, Scores, Subset, SystemOutput

SIGNIFICANT = 0.05


def format_report(report: BenchmarkReport) -> str:
    """The report for people. Ends without a line break."""
    blocks = [
        _describe_test_set(report),
        _score_table(report.systems, report.whole),
        _speed_table(report.systems),
        _describe_overlap(report.systems),
        *_tables_without_overlap(report),
        _signatures(report.whole.scores[0]),
        _footnotes(report),
    ]
    return "\n\n".join(block for block in blocks if block)


def _describe_test_set(report: BenchmarkReport) -> str:
    test_set = report.test_set
    name = f"{test_set.name} {test_set.language_pair}, " if test_set.name else ""
    references = ", ".join(reference.name for reference in test_set.references)
    count = f"{len(test_set):,} sentence{'s' if len(test_set) != 1 else ''}"
    return f"Test set: {name}{count}\nsource: {test_set.source.name}\nreference: {references}"


def _score_table(systems: Sequence[SystemOutput], subset: Subset) -> str:
    """A row a system: scores with intervals, a star where the difference to the first is significant."""
    compared = len(systems) > 1
    header = ["system", *(score.name for score in subset.scores[0].values())]
    rows = []
    for system, scores in zip(systems, subset.scores, strict=True):
        cells = [system.name]
        for score in scores.values():
            star = "*" if score.p_value is not None and score.p_value < SIGNIFICANT else " "
            cells.append(f"{score.value:.2f} [{score.low:.2f}, {score.high:.2f}]" + (star if compared else ""))
        rows.append(cells)
    table = _align([header, *rows])
    return f"{table}\n\n{_significance_table(systems, subset)}" if compared else table


def _speed_table(systems: Sequence[SystemOutput]) -> str:
    """Of the systems that translated."""
    rows = [
        [system.name, f"{system.speed.sentences_per_second:,.1f}", f"{system.speed.output_tokens_per_second:,.1f}"]
        for system in systems
        if system.speed
    ]
    return _align([["speed", "sentences/s", "tokens/s"], *rows]) if rows else ""


def _significance_table(systems: Sequence[SystemOutput], subset: Subset) -> str:
    header = [f"p against {systems[0].name}", *(score.name for score in subset.scores[0].values())]
    rows = [
        [system.name, *(f"{score.p_value:.3f}" for score in scores.values())]
        for system, scores in zip(systems[1:], subset.scores[1:], strict=True)
    ]
    return _align([header, *rows])


def _describe_overlap(systems: Sequence[SystemOutput]) -> str:
    rows = [["sources in training data", "exact", "normalised"]]
    for system in systems:
        if system.overlap:
            counts = [system.overlap.exact, system.overlap.normalized]
            rows.append([system.name, *(f"{count:,} of {system.overlap.total:,}" for count in counts)])
        else:
            rows.append([system.name, "unknown", "unknown"])
    return _align(rows)


def _tables_without_overlap(report: BenchmarkReport) -> list[str]:
    """The scores on what is left, by both definitions of overlap; once where they remove the same sentences."""
    if report.without_exact is None or report.without_normalized is None:
        return []
    subsets = {"exact": report.without_exact, "normalised": report.without_normalized}
    if report.without_exact.lines == report.without_normalized.lines:
        subsets = {"exact or normalised": report.without_normalized}
    blocks = []
    for kind, subset in subsets.items():
        removed = report.whole.lines - subset.lines
        if removed:
            sentences = "sentence" if removed == 1 else "sentences"
            table = _score_table(report.systems, subset) if subset.scores else "nothing to score"
            blocks.append(f"Without {removed:,} {sentences} of {kind} overlap ({subset.lines:,} left):\n{table}")
    return blocks


def _signatures(scores: Scores) -> str:
    """One signature a metric, as sacreBLEU prints it; it holds for all systems."""
    return "\n".join(f"{score.name}|{score.signature}" for score in scores.values())


def _footnotes(report: BenchmarkReport) -> str:
    notes = ["[low, high]: 95% bootstrap confidence interval."]
    if "ter" in report.metrics:
        notes[0] += " TER: lower is better."
    if len(report.systems) > 1:
        notes.append(
            f"p: of a difference to {report.systems[0].name} by chance, from two-sided approximate randomisation; "
            f"*: p < {SIGNIFICANT}."
        )
    speeds = [system.speed for system in report.systems if system.speed]
    for hardware, precision in dict.fromkeys((speed.hardware, speed.precision) for speed in speeds):
        notes.append(f"Speed on {hardware}, {precision}; tokens are target pieces with end-of-sentence.")
    return "\n".join(notes)


def _align(rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as their widest cell, two spaces apart; the first is flush left, the others flush right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )

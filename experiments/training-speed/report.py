"""From records to results, and from results to tables. Standard library only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from common import MEASURED, Record

OURS = "ours"
SPEED = "target_tokens_per_second"
Results = Mapping[str, Any]


def is_ours(name: str) -> bool:
    return name.startswith(f"{OURS}-")


def summarise(systems: Mapping[str, Sequence[Record]]) -> dict[str, Any]:
    """The medians over the rounds of every system, its ratio, and the figures that a reader looks for first.

    systems: the records of each system, one a round. "Ours" in a ratio is the precision of this project that was
    faster. A ratio of speeds is the median of the rounds' ratios, because the machine's speed drifts between rounds.
    """
    rows = {name: _row(records) for name, records in systems.items()}
    measured = {name: row for name, row in rows.items() if row["status"] == MEASURED}
    ours = max((name for name in measured if is_ours(name)), key=lambda name: measured[name][SPEED], default=None)
    peers = {name: row for name, row in measured.items() if not is_ours(name)}
    if ours is not None:
        for name, row in measured.items():
            pairs = zip(systems[ours], systems[name], strict=True)
            row["ours_over_this"] = median(own[SPEED] / other[SPEED] for own, other in pairs)
    summary: dict[str, Any] = {"ours": ours}
    if peers:
        fastest = max(peers, key=lambda name: peers[name][SPEED])
        smallest = min(peers, key=lambda name: peers[name]["peak_memory_bytes"])
        summary |= {"fastest_stock_peer": fastest, "smallest_peer": smallest}
        if ours is not None:
            summary["ours_over_fastest_stock_peer"] = peers[fastest]["ours_over_this"]
            own, other = (row["peak_memory_bytes"] for row in (rows[ours], peers[smallest]))
            summary["peak_memory_ours_over_smallest_peer"] = own / other
    return {"systems": rows, "summary": summary}


def _row(records: Sequence[Record]) -> Record:
    """One system over its rounds: median speed and loss, largest memory; the first record where one failed."""
    failed = [record for record in records if record["status"] != MEASURED]
    if failed:
        return dict(failed[0])
    row = dict(records[0])
    for key in (SPEED, "target_tokens", "seconds"):
        row[key] = median(record[key] for record in records)
    row["peak_memory_bytes"] = max(record["peak_memory_bytes"] for record in records)
    row["rounds"] = [record[SPEED] for record in records]
    return row


# Tables


def systems_table(results: Results) -> tuple[list[str], list[list[str]]]:
    """Header and rows: a system a row."""
    header = [
        "system", "target tokens/s", "padding, source", "padding, target", "peak memory, MB", "validation nll/token",
        "parameters", "ours / this",
    ]  # fmt: skip
    rows = []
    for name, row in results["systems"].items():
        if row["status"] != MEASURED:
            rows.append([name, row["status"], *[""] * (len(header) - 2)])
            continue
        rows.append([
            name,
            f"{row[SPEED]:,.0f}",
            _percent(row["padding_source"]),
            _percent(row["padding_target"]),
            f"{row['peak_memory_bytes'] / 1e6:,.0f}",
            f"{row['validation_nll']:.4f}",
            f"{row['parameters']:,}",
            f"{row['ours_over_this']:.2f}" if "ours_over_this" in row else "",
        ])  # fmt: skip
    return header, rows


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:.1%}"


def parts_table(results: Results) -> tuple[list[str], list[list[str]]]:
    """Header and rows: a part of the step a row, milliseconds for 1,000 target tokens, a system a column."""
    measured = {name: record for name, record in results["parts"].items() if record["status"] == MEASURED}
    columns = {}
    for name, record in measured.items():
        thousands = record["target_tokens"] / results["settings"]["steps"] / 1000
        columns[name] = {part: value / thousands for part, value in record["milliseconds_per_step"].items()}
    parts = list(next(iter(columns.values()), {}))
    rows = [[part, *(f"{column[part]:.2f}" for column in columns.values())] for part in parts]
    if rows:
        rows.append(["together", *(f"{sum(column.values()):.2f}" for column in columns.values())])
    return ["ms / 1,000 target tokens", *columns], rows


def headline(results: Results) -> list[str]:
    """The figures that a reader looks for first, and what could not be measured, a line each."""
    summary = results["summary"]
    lines = []
    if "fastest_stock_peer" in summary:
        lines.append(f"fastest stock peer: {summary['fastest_stock_peer']}")
    if "ours_over_fastest_stock_peer" in summary:
        memory = summary["peak_memory_ours_over_smallest_peer"]
        lines.append(f"ours / fastest stock peer: {summary['ours_over_fastest_stock_peer']:.2f} ({summary['ours']})")
        lines.append(f"peak memory: ours / smallest peer: {memory:.2f} ({summary['smallest_peer']})")
    for group in ("systems", "parts"):
        for name, record in results[group].items():
            if record["status"] != MEASURED:
                where = " (parts)" if group == "parts" else ""
                lines.append(f"{name}{where}: {record['status']}: {record['reason']}")
    return lines


def conditions(results: Results) -> str:
    """What it was measured with, in one sentence."""
    machine, settings = results["machine"], results["settings"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items() if version)
    return (
        f"{machine['processor']}, {settings['threads']} thread(s); {versions}; {results['rounds']} round(s) of "
        f"{settings['steps']} timed steps after {settings['warmup_steps']}, batches of {settings['batch_tokens']:,} "
        f"tokens, {settings['vocab_size']:,} pieces; load of the machine before: {machine['load_average']:.1f}."
    )


def plain(header: list[str], rows: list[list[str]]) -> str:
    """A table for a terminal."""
    widths = [max(len(line[i]) for line in (header, *rows)) for i in range(len(header))]
    return "\n".join(
        "  ".join(cell.ljust(width) if i == 0 else cell.rjust(width) for i, (cell, width) in enumerate(pairs)).rstrip()
        for pairs in (list(zip(line, widths, strict=True)) for line in (header, *rows))
    )


def markdown(header: list[str], rows: list[list[str]]) -> str:
    """A table for a README."""
    rule = ["---", *["---:"] * (len(header) - 1)]
    return "\n".join(f"| {' | '.join(line)} |" for line in (header, rule, *rows))


def report(results: Results, *, as_markdown: bool) -> str:
    """Conditions, tables and headline figures."""
    table = markdown if as_markdown else plain
    bullet = "- " if as_markdown else ""
    blocks = [conditions(results), table(*systems_table(results))]
    header, rows = parts_table(results)
    if rows:
        blocks.append(table(header, rows))
    blocks.append("\n".join(f"{bullet}{line}" for line in headline(results)))
    return "\n\n".join(blocks)

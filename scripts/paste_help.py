"""Writes the tables of docs/settings.md from the settings themselves: `python -m scripts.paste_help`."""

import sys
from itertools import groupby

from settings import OLDER_FLAGS, PROJECT_FOLDER, OlderFlag, Spec, flag, specs, variable

#: What stands around the generated part.
BEGIN = "<!-- made by `python -m scripts.paste_help` -->"
END = "<!-- end of what is made -->"

PAGE = PROJECT_FOLDER / "docs" / "settings.md"


def tables() -> str:
    """Return a table for each subject, with a row for each setting, and one of older programs' flags."""
    parts = []
    for subject, members in groupby(specs().items(), key=lambda member: member[1].subject):
        rows = [_row(name, spec) for name, spec in members]
        parts.append("\n".join([f"## {subject}", "", *_HEAD, *rows]))
    older = [_older_row(one) for one in OLDER_FLAGS.values()]
    parts.append("\n".join(["## Flags of older programs", "", *_OLDER_HEAD, *older]))
    return "\n\n".join(parts)


def pasted(page: str) -> str:
    """Return the page with what stands between the marks made anew."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{tables()}\n\n{END}{after}"


_HEAD = (
    "| flag | environment | default | used by | meaning |",
    "|---|---|---|---|---|",
)

_OLDER_HEAD = (
    "| flag, on the command line only | meaning |",
    "|---|---|",
)


def _row(name: str, spec: Spec) -> str:
    said = f"{flag(name)} {spec.metavar}".strip()
    default = "" if spec.default is None or spec.is_switch else f"`{spec.default}`"
    cells = (f"`{said}`", f"`{variable(name)}`", default, ", ".join(spec.programs), spec.explanation)
    return _table_row(cells)


def _older_row(older: OlderFlag) -> str:
    said = ", ".join(f"`{one} {older.metavar}`" for one in older.flags)
    return _table_row((said, older.meaning))


def _table_row(cells: tuple[str, ...]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def main() -> int:
    PAGE.write_text(pasted(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    print(f"{PAGE.relative_to(PROJECT_FOLDER)} is up to date")
    return 0


if __name__ == "__main__":
    sys.exit(main())

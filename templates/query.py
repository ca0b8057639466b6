"""Whether a query only reads: one SELECT, or WITH … SELECT, and nothing beside it."""

import re

#: What may hold any word without meaning it: quoted text and names, and comments. Quotes are doubled, as
#: standard SQL does; MariaDB runs the text of /*! and /*M!, so those two are not comments here.
_QUOTED_OR_COMMENT = re.compile(
    r"""'(?:[^']|'')*' | "(?:[^"]|"")*" | `(?:[^`]|``)*` | --[^\n]* | /\*(?!M?!).*?\*/""",
    re.VERBOSE | re.DOTALL,
)

#: Words by which a statement that begins like a query still writes or locks: WITH … DELETE, SELECT … INTO,
#: SELECT … FOR UPDATE. None of them is a column's name without quotes.
_WRITING_WORDS = frozenset({"DELETE", "INSERT", "INTO", "LOCK", "MERGE", "UPDATE"})


def complaint_about_query(query: str) -> str | None:
    """Say why the query is refused, or None if it only reads.

    A check against mistakes of the operator, whose file it is; the transaction that runs the query is
    read-only besides.
    """
    bare = _QUOTED_OR_COMMENT.sub(" ", query).strip().removesuffix(";")
    words = re.findall(r"\w+", bare.upper())
    if re.search(r"""['"`]|/\*""", bare):
        return "has a quote or comment that does not end (a quote within quotes is written twice)"
    if ";" in bare:
        return "must be one statement, but ';' separates several"
    if re.match(r"(SELECT|WITH)\b", bare, re.IGNORECASE) is None or "SELECT" not in words:
        return "must be one SELECT … or WITH … SELECT …"
    if writing := _WRITING_WORDS.intersection(words):
        return f"must only read, but says {min(writing)}"
    return None

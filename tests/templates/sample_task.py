"""A task that works, to be broken in tests."""

BOOKS = """\
description = "Find books"

[source]
query = "SELECT id, title FROM book ORDER BY id"
key = "id"

[prompt]
file = "books.jinja"

[answer]
field = "title"
at_most = 10
none_allowed = true
"""

PROMPT = """\
Books:
{% for row in rows %}
{{ row.title | tojson }}
{% endfor %}

The reader wants: {{ wish }}
"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from templates.prompt import RENDER_ERRORS, PromptError, compile_prompt, render_prompt

LIST = "{% for row in rows %}\n{{ row.title | tojson }}\n{% endfor %}\n"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{% for row in rows %}", "line 1: Unexpected end"),
        ("\n\n{{ rows | shuffle }} {{ wish }}", "line 3: No filter named 'shuffle'"),
        (LIST + "{{ wihs }}", "unknown variable 'wihs'"),
        (LIST + "{{ wish }} {{ config }}", "unknown variable 'config'"),
        (LIST, "never uses 'wish'"),
        ("{{ wish }}", "never uses 'rows'"),
        ("{{ wish }}\n" + LIST, "rows first and the wish last"),
        (LIST + "{{ wish }} of {{ rows | length }}", "rows first and the wish last"),
        ("{% for row in rows %}{{ row.title }}{{ wish }}{% endfor %}", "rows first and the wish last"),
        ("{% if wish %}{% endif %}" + LIST, "never shows the wish"),
        ("{% set all = rows %}{{ wish }}{% for row in all %}{{ row.title }}{% endfor %}", "rows first"),
        ("{% include 'other.jinja' %}" + LIST + "{{ wish }}", "cannot be rendered"),
        (LIST + "{{ wish }}{{ rows.__class__.__mro__ }}", "cannot be rendered"),
        (LIST + "{{ wish }}{{ rows.append(1) }}", "cannot be rendered"),
        ("{% for row in rows %}{{ row.price / 2 }}{% endfor %}{{ wish }}", "filters such as `float`"),
        ("{{ rows | random }}{{ wish }}", "No filter named 'random'"),
        ("{{ lipsum() }}" + LIST + "{{ wish }}", "unknown variable 'lipsum'"),
    ],
)
def test_a_prompt_that_would_not_work_is_refused(text, reason):
    with pytest.raises(PromptError) as raised:
        compile_prompt(text)
    assert reason in str(raised.value)


@pytest.mark.parametrize(
    "text",
    [
        LIST + "{{ wish }}",
        LIST + "{{ wish | upper }}\nAnswer:",
        "{{ rows | length }} books\n" + LIST + "{{ wish | tojson }} {{ wish }}",
        "{% for row in rows %}{{ loop.index }} {{ row['title'] }}\n{% endfor %}{{ wish }}",
        "{% for row in rows %}{{ row.price | float / 2 }}\n{% endfor %}{{ wish }}",
    ],
)
def test_a_prompt_with_rows_first_and_wish_last_is_taken(text):
    compile_prompt(text)


def test_blocks_leave_no_lines_and_the_last_line_end_is_dropped():
    text = "List:\n  {% for row in rows %}\n  {{ row.title | tojson }}\n  {% endfor %}\nWish: {{ wish }}\n"
    rendered = render_prompt(compile_prompt(text), [{"title": "A"}, {"title": "B"}], "w")
    assert rendered == 'List:\n  "A"\n  "B"\nWish: w'


def test_a_column_wins_over_a_method_of_the_same_name():
    template = compile_prompt("{% for row in rows %}{{ row.items }} {{ row.keys }}\n{% endfor %}{{ wish }}")
    assert render_prompt(template, [{"items": "nails", "keys": 7}], "w") == "nails 7\nw"


def test_a_column_that_is_not_there_is_named():
    template = compile_prompt(LIST + "{{ wish }}")
    with pytest.raises(RENDER_ERRORS, match="title"):
        render_prompt(template, [{"name": "A"}], "w")


@given(titles=st.lists(st.text(), min_size=1), first=st.text(), second=st.text())
def test_prompts_for_two_wishes_share_everything_up_to_the_wish(titles, first, second):
    template = compile_prompt(LIST + "Wish: {{ wish }}")
    rows = [{"title": title} for title in titles]
    one, other = render_prompt(template, rows, first), render_prompt(template, rows, second)
    assert one.endswith(first)
    assert other.endswith(second)
    assert one.removesuffix(first) == other.removesuffix(second)

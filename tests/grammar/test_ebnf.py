"""EBNF: the texts of the rule root, no more, and no fewer where nothing recurses."""

import pytest

from contract import Ebnf
from grammar import compile_grammar
from tests.grammar.walking import accepts
from tests.vocabularies import small

#: grammar, texts in it, texts not in it.
READ = [
    ('root ::= "a" [b-d]* ("x" | "yz"){2,3}', ["axx", "abdyzxyz"], ["ax", "aexx", "axxxx"]),
    ('root ::= [a-z]* "!" | "xy?"', ["xy!", "xy?", "!"], ["xyz", "xy"]),
    ('root ::= "(" root ")" | ""', ["", "(())"], ["(()"]),
    ('root ::= [a-z]* x\nx ::= "x" | ""', ["ax", "xa", "xx"], ["1"]),
    ('root ::= list\nlist ::= "[" (root ("," root)*)? "]" | [0-9]+', ["[1,[],23]", "7"], ["[1,]", "[", ""]),
    (r'root ::= "\n\t\\\"" [^"\]\x41-C] "\u00e9\U0001F600"', ['\n\t\\"D\u00e9😀'], ['\n\t\\"B\u00e9😀']),
    ('root ::= . . # any two\n', ["\n中", "//"], ["a", "abc"]),
    ('root ::= [-a] [a-] [\\^] "/"', ["--^/", "aa^/"], ["b-^/"]),
    ('root ::=\n  under_score |\n  with-dash\nunder_score ::= "u"\nwith-dash ::= "d"', ["u", "d"], ["ud"]),
]  # fmt: skip

REFUSED = [
    ("", "there is no rule named root"),
    ('x ::= "a"', "there is no rule named root"),
    ("root ::= x", "rule root uses x, which is not defined"),
    ('root ::= "a" root', "rule root has no end"),
    ('root ::= "a" | b\nb ::= "b" b', "rule b has no end"),
    ('root ::= "a"\nroot ::= "b"', "line 2: rule root stands there twice"),
    ('root ::= "a', "line 1: cannot read"),
    ('\n\nroot = "a"', "line 3: cannot read"),
    ("root ::= *", r"line 1: \* stands behind nothing"),
    ('root ::= ("a"', r"\) is expected before the end"),
    ('root ::= "a" )', "line 1: a rule's name is expected"),
    ("root ::= [z-a]", "range backwards"),
    ("root ::= []", "the class .* is empty"),
    (r'root ::= "\q"', "is no escape"),
    (r'root ::= "\ud800"', "is no character"),
    ('root ::= "a"{3,2}', "is not within"),
    ('root ::= "a"{99999}', "is not within"),
    ("root ::= " + "(" * 50 + '"a"' + ")" * 50, "more than 24 levels"),
    ("root ::= [" + "x" * 200_000 + "]", "bytes are more than"),
]


@pytest.mark.parametrize(("grammar", "inside", "outside"), READ, ids=range(len(READ)))
def test_texts_of_the_grammar_are_allowed_and_others_are_not(grammar, inside, outside):
    compiled = compile_grammar(Ebnf(grammar), small())
    assert [text for text in inside if not accepts(compiled, small(), text)] == []
    assert [text for text in outside if accepts(compiled, small(), text)] == []


@pytest.mark.parametrize(("grammar", "complaint"), REFUSED, ids=lambda value: value[:24])
def test_a_wrong_grammar_is_refused_with_its_line(grammar, complaint):
    with pytest.raises(ValueError, match=complaint):
        compile_grammar(Ebnf(grammar), small())

"""Constrained decoding: which tokens may come next, over the whole harmony envelope.

    formats.py   what a text must look like: JSON schema, regex, choice, Lark
    envelope.py  what a completion may consist of, written as one Lark grammar
    matcher.py   compiled grammars, and completions on their way through them

llguidance does the parsing. It does not know what a logit is, nor how ids become messages.

    spec = GrammarSpec(answer=choice(["yes", "no"]))
    matcher = compile_grammar(spec, load_tokenizer()).matcher()
"""

from gptoss_mlx.grammar.envelope import GrammarSpec, Tool
from gptoss_mlx.grammar.formats import Format, choice, json_object, json_schema, lark, regex
from gptoss_mlx.grammar.matcher import Grammar, Matcher, compile_grammar, format_problem

__all__ = [
    "Format",
    "Grammar",
    "GrammarSpec",
    "Matcher",
    "Tool",
    "choice",
    "compile_grammar",
    "format_problem",
    "json_object",
    "json_schema",
    "lark",
    "regex",
]

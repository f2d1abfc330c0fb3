"""One model's chat format: its template, its tool calls, its reasoning. Knows no request, no tokens but by the tokenizer.

What a template can do is found out once, by trying it on a small conversation.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from src.errors import FIELD, FieldPath, InvalidValue, UnsupportedField
from src.text.conversation import Conversation
from src.text.grammar import Budget, GrammarCompiler
from src.text.output.channels import Channels, PlainText
from src.text.output.thinking import THINK_TAGS, Marks, Phase, Thinking, phase
from src.text.template import ChatTemplate
from src.text.tokenizer.base import Tokenizer
from src.text.tool_messages import Message
from src.text.tools import by_name, harmony
from src.text.tools.call import Function
from src.text.tools.lark import Lark, Token, Want

SWITCHES = ("enable_thinking", "thinking")  # two names that templates have for one thing
EFFORT = "reasoning_effort"


class Dialect:
    def __init__(
        self, template: ChatTemplate, tokenizer: Tokenizer, tool_format: str | None = None, tool_template: ChatTemplate | None = None
    ) -> None:
        """`tool_template`: another one for requests with tools. Raises ModelLoadFailed for a `tool_format` that is not known."""
        self._template = template
        self._tokenizer = tokenizer
        self._conversation = Conversation(template, tool_format)
        self._format = by_name(self._conversation.format)
        self._harmony = self._conversation.format == "harmony"
        self._marks = None if self._harmony else _marks(template.source, tokenizer)
        self._tool_markers = self._without_bytes(self._format.MARKERS)
        self._thinking_markers = self._without_bytes((self._marks.opening, self._marks.closing) if self._marks else ())
        self.shows_tools = self._conversation.shows_tools
        other = Dialect(tool_template, tokenizer, tool_format) if tool_template else None
        self._with_tools = other if other and other.shows_tools else None

    @property
    def template(self) -> str:
        """Jinja source."""
        return self._template.source

    def prompt(
        self,
        messages: list[Message],
        *,
        tools: list[dict[str, Any]] | None = None,
        variables: Mapping[str, Any],
        effort: str | None = None,
        generation_prompt: bool = True,
        continued: bool = False,
    ) -> str:
        """Raises InvalidValue for what the template refuses or does not know. Hints that it cannot follow have no effect: see unmet()."""
        if tools and self._with_tools:
            return self._with_tools.prompt(
                messages, tools=tools, variables=variables, effort=effort, generation_prompt=generation_prompt, continued=continued
            )
        known = self._variables(variables, effort)
        refusal: InvalidValue | None = None
        # A template may fail on a schema that it was not written for.
        for form in self._conversation.forms(messages, tools or []):
            try:
                return self._template.render(
                    form.messages, tools=form.tools, variables=known, generation_prompt=generation_prompt, continued=continued
                )
            except InvalidValue as error:
                refusal = refusal or error
        assert refusal
        raise refusal

    def unmet(self, variables: Mapping[str, Any], effort: str | None, *, has_tools: bool) -> list[UnsupportedField]:
        """What is asked of the model's reasoning and has no effect on it: why, and the field."""
        if has_tools and self._with_tools:
            return self._with_tools.unmet(variables, effort, has_tools=False)
        switches = [name for name in SWITCHES if name in self._template.variables]
        reasons = self._marks is not None or self._harmony
        found = []
        if not switches:
            for key in SWITCHES:
                if variables.get(key) not in ((None, True) if reasons else (None, False)):
                    found.append(_unmet(reasons, ("chat_template_kwargs", key)))
        if effort and EFFORT not in self._template.variables and not switches and (effort == "none") == reasons:
            found.append(_unmet(reasons, (EFFORT,)))
        return found

    def shown(self, functions: list[Function]) -> dict[int, bytes]:
        """The control tokens that an answer's channels have to see, as the bytes of their text."""
        if functions and self._with_tools:
            return self._with_tools.shown(functions)
        return self._thinking_markers | (self._tool_markers if functions or self._harmony else {})

    def _without_bytes(self, texts: Iterable[str]) -> dict[int, bytes]:
        tokens = ((text, self.token_of(text)) for text in texts)
        return {token.id: text.encode() for text, token in tokens if token and token.control}

    def channels(self, prompt: list[int], functions: list[Function]) -> Channels:
        """A machine for one answer to the prompt; calls are read where there are functions."""
        if functions and self._with_tools:
            return self._with_tools.channels(prompt, functions)
        if self._harmony:
            return harmony.reader(functions)
        answer = self._format.reader(functions) if functions else PlainText()
        if self._marks is None:
            return answer
        return Thinking(self._marks, answer, phase(self._marks, self._end_of(prompt)))

    def grammar(
        self,
        prompt: list[int],
        functions: list[Function],
        *,
        forced: bool,
        parallel: bool,
        content: str | None,
        grammars: GrammarCompiler,
        budget: Budget | None = None,
    ) -> str | None:
        """The source of an answer's grammar; None where any text will do. `content`: that of an answer that is no call. `budget`:
        for the functions' schemas together.

        Raises InvalidSchema for a strict function whose schema cannot be enforced.
        """
        if functions and self._with_tools:
            return self._with_tools.grammar(
                prompt, functions, forced=forced, parallel=parallel, content=content, grammars=grammars, budget=budget
            )
        if not (forced or content is not None or any(function.strict for function in functions) or (functions and not parallel)):
            return None
        where = phase(self._marks, self._end_of(prompt))
        if content is not None and not functions and not self._harmony and where is Phase.OVER:
            return content
        lark = Lark(self.token_of, grammars, content, budget)
        want = Want(forced=forced, parallel=parallel, content=bool(content), marks=self._marks, phase=where)
        if functions or self._harmony:
            return lark.source(self._format.grammar(lark, functions, want))
        return lark.source(f"{lark.thinking(want)} {lark.content}")

    def token_of(self, text: str) -> Token | None:
        tokens = self._tokenizer.encode(text, add_bos=False)
        return Token(tokens[0], control=not self._tokenizer.bytes_of(tokens[0])) if len(tokens) == 1 else None

    def _end_of(self, prompt: list[int]) -> str:
        return b"".join(self._tokenizer.display_bytes(token) for token in prompt[-16:]).decode(errors="replace")

    def _variables(self, wanted: Mapping[str, Any], effort: str | None) -> dict[str, Any]:
        known = self._template.variables
        variables: dict[str, Any] = {}
        for key, value in wanted.items():
            names = SWITCHES if key in SWITCHES else (key,)
            found = [name for name in names if name in known]
            if not found and key not in SWITCHES and value not in (None, False):
                raise InvalidValue(f"This model's chat template does not know {key}.", ("chat_template_kwargs", key))
            variables |= dict.fromkeys(found, value)
        return variables | (self._effort(effort) if effort else {})

    def _effort(self, effort: str) -> dict[str, Any]:
        """A template knows levels, or reasoning that is on or off, or nothing."""
        known = self._template.variables
        if EFFORT in known:
            return {EFFORT: effort}
        if switches := [name for name in SWITCHES if name in known]:
            return dict.fromkeys(switches, effort != "none")
        return {}


def _unmet(reasons: bool, path: FieldPath) -> UnsupportedField:
    if reasons:
        return UnsupportedField(f"This model always reasons: its chat template knows no way to leave it out. ({FIELD})", path)
    return UnsupportedField(f"This model does not reason, so {FIELD} has no meaning for it. Leave it out.", path)


def _marks(template: str, tokenizer: Tokenizer) -> Marks | None:
    """What the model's reasoning stands between, by its template or vocabulary."""
    return next(
        (
            marks
            for marks in THINK_TAGS
            if marks.closing in template or all(_is_one_token(text, tokenizer) for text in (marks.opening, marks.closing))
        ),
        None,
    )


def _is_one_token(text: str, tokenizer: Tokenizer) -> bool:
    return len(tokenizer.encode(text, add_bos=False)) == 1

"""Settings of what a request may take and hold. Whoever goes beyond one is told its name and what it allows."""

from pydantic import Field

from src.settings.group import Group


class Limits(Group):
    # Time
    request_timeout: float = Field(600, gt=0, description="seconds a request may take in all")
    queue_timeout: float = Field(300, ge=0, description="seconds a request may wait till it is begun before it gets a 503; 0: any")
    header_timeout: float = Field(10, gt=0, le=600, description="seconds a request's headers may take to arrive")
    body_timeout: float = Field(30, gt=0, description="seconds a request's body may take to arrive")
    send_timeout: float = Field(60, gt=0, description="seconds a client may read nothing of its answer before it is cut off")
    keepalive_timeout: int = Field(5, ge=1, le=3600, description="seconds a connection stays open for its next request")

    # Requests
    max_concurrent_requests: int = Field(256, ge=1, description="requests running and waiting on one model; more get a 429")
    max_request_line: int = Field(4094, ge=256, le=8190, description="bytes of a request's first line, which has the path")
    max_headers: int = Field(100, ge=10, le=1000, description="headers of a request")
    max_header_bytes: int = Field(8190, ge=256, le=65_536, description="size of one header")
    max_body_bytes: int = Field(8 * 2**20, ge=1024, description="size of a request's body")
    max_json_depth: int = Field(64, ge=8, le=500, description="objects and lists in each other in a body")
    max_json_containers: int = Field(100_000, ge=1000, description="objects and lists in a body, in all")
    strict_fields: bool = Field(False, description="refuse fields that a route does not know, rather than name them in X-Ignored-Fields")

    # Fields
    max_messages: int = Field(2048, ge=1, description="messages of a chat")
    max_content_parts: int = Field(2048, ge=1, description="parts of one message")
    max_input_items: int = Field(4096, ge=1, description="items of the input of a response")
    max_prompts: int = Field(64, ge=1, description="prompts of one text completion")
    max_inputs: int = Field(2048, ge=1, description="texts that one request may have embedded")
    max_prompt_tokens: int = Field(0, ge=0, description="tokens of one prompt; 0: as many as the context holds")
    max_completion_tokens: int = Field(0, ge=0, description="tokens of one answer; 0: as many as the context holds")
    max_n: int = Field(128, ge=1, description="choices of a prompt (n)")
    max_logprobs: int = Field(20, ge=0, le=20, description="likeliest tokens told at each place (top_logprobs)")
    max_stop: int = Field(16, ge=0, description="stop strings")
    max_stop_length: int = Field(256, ge=1, description="characters of a stop string")
    max_stop_token_ids: int = Field(64, ge=0, description="tokens that stop an answer")
    max_logit_bias: int = Field(300, ge=0, description="tokens with a logit_bias")
    max_tools: int = Field(128, ge=0, description="tools of a chat")
    max_tool_description: int = Field(16 * 1024, ge=1, description="characters of a tool's description")
    max_tool_calls: int = Field(128, ge=1, description="tool calls in one message")
    max_template_variables: int = Field(16, ge=0, description="entries of chat_template_kwargs")
    max_template_variable_length: int = Field(1024, ge=1, description="characters of one of them")

    # Grammars and templates
    max_grammar_bytes: int = Field(
        64 * 1024, ge=1, description="size of a JSON schema (also a tool's), regular expression, list of choices or grammar"
    )
    max_grammar_depth: int = Field(32, ge=1, le=100, description="objects and lists in each other in a JSON schema (also a tool's)")
    max_grammar_properties: int = Field(400, ge=1, le=10_000, description="properties of one object in a JSON schema")
    max_grammar_choices: int = Field(1024, ge=1, description="texts that an answer may be one of (guided_choice)")
    grammar_compile_seconds: float = Field(5, gt=0, le=60, description="seconds it may take to compile a grammar")
    template_seconds: float = Field(2, gt=0, le=60, description="seconds of processor time a model's chat template may take on a request")

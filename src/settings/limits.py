"""Settings of what a request may take and hold. Whoever goes beyond one is told its name and what it allows."""

from typing import Literal

from pydantic import Field

from src.settings.group import Group


class Limits(Group):
    # Time
    request_timeout: float = Field(600, gt=0, description="seconds that a request may take in all")
    queue_timeout: float = Field(300, ge=0, description="seconds that a request may wait in the queue before it gets a 503; 0 = unlimited")
    header_timeout: float = Field(10, gt=0, le=600, description="seconds that a request's headers may take to arrive")
    body_timeout: float = Field(30, gt=0, description="seconds that a request's body may take to arrive")
    send_timeout: float = Field(60, gt=0, description="seconds that a client may read nothing of its answer before it is disconnected")
    keepalive_timeout: int = Field(5, ge=1, le=3600, description="seconds that an idle connection stays open for its next request")

    # Requests
    max_concurrent_requests: int = Field(256, ge=1, description="sequences running and waiting per model; further ones get a 429")
    max_request_line: int = Field(4094, ge=256, le=8190, description="bytes in the request line, which contains the path")
    max_headers: int = Field(100, ge=10, le=1000, description="headers per request")
    max_header_bytes: int = Field(8190, ge=256, le=65_536, description="bytes in one header")
    max_body_bytes: int = Field(8 * 2**20, ge=1024, description="bytes in a request's body")
    max_bodies_bytes: int = Field(
        256 * 2**20,
        ge=2048,
        description="bytes in the bodies of a worker's unanswered requests, in all (half of them for one key or address)",
    )
    max_json_depth: int = Field(64, ge=8, le=500, description="maximum nesting depth of a JSON body")
    max_json_containers: int = Field(100_000, ge=1000, description="objects and arrays in a JSON body, in all")
    max_json_values: int = Field(2**20, ge=1000, description="values in a JSON body, in all: each token of a list of tokens is one")
    strict_fields: bool = Field(False, description="refuse unknown fields instead of naming them in X-Ignored-Fields")

    # Fields
    max_messages: int = Field(2048, ge=1, description="messages in a chat")
    max_content_parts: int = Field(2048, ge=1, description="content parts in one message")
    max_input_items: int = Field(4096, ge=1, description="input items in a Responses request")
    max_prompts: int = Field(64, ge=1, description="prompts in one text completion")
    max_inputs: int = Field(2048, ge=1, description="texts in one embeddings request")
    max_prompt_tokens: int = Field(0, ge=0, description="tokens in one prompt; 0 = as many as the context holds")
    max_completion_tokens: int = Field(0, ge=0, description="tokens in one completion; 0 = as many as the context holds")
    max_n: int = Field(128, ge=1, description="choices per prompt (n)")
    max_logprobs: int = Field(20, ge=0, le=20, description="most likely tokens reported per position (top_logprobs)")
    max_answer_logprobs: int = Field(
        2**21, ge=1, description="logprobs in one answer: choices of all prompts x max_tokens x (1 + top_logprobs)"
    )
    max_stop: int = Field(16, ge=0, description="stop strings")
    max_stop_length: int = Field(256, ge=1, description="characters in a stop string")
    max_stop_token_ids: int = Field(64, ge=0, description="stop token IDs")
    max_logit_bias: int = Field(300, ge=0, description="entries in logit_bias")
    max_tools: int = Field(512, ge=0, description="tools in a chat")
    unsupported_media: Literal["refuse", "note"] = Field(
        "refuse", description="images and files in a new user message: refuse, or note (the model reads a note in their place)"
    )
    max_tool_description: int = Field(1024 * 1024, ge=1, description="characters in a tool's description")
    max_tool_calls: int = Field(128, ge=1, description="tool calls in one message")
    max_template_variables: int = Field(16, ge=0, description="entries in chat_template_kwargs")
    max_template_variable_length: int = Field(1024, ge=1, description="characters in one entry of chat_template_kwargs")

    # Grammars and templates
    max_grammar_bytes: int = Field(
        64 * 1024, ge=1, description="bytes in a JSON schema (a tool's too), regular expression, list of choices or grammar"
    )
    max_grammar_depth: int = Field(32, ge=1, le=100, description="maximum nesting depth of a JSON schema (a tool's too)")
    max_grammar_properties: int = Field(400, ge=1, le=10_000, description="properties of one object in a JSON schema")
    max_grammar_choices: int = Field(1024, ge=1, description="choices in guided_choice")
    grammar_compile_seconds: float = Field(
        5, gt=0, le=60, description="seconds that compiling the schemas and grammars of a request may take"
    )
    template_seconds: float = Field(
        2, gt=0, le=60, description="seconds of CPU time that rendering a model's chat template may take per request"
    )

"""How much a chat request may hold. Knows no field by name."""

MAX_MESSAGES = 2048
MAX_CALLS = 128  # of one message
MAX_TOOLS = 128
MAX_DESCRIPTION = 16 * 1024  # characters, of a function
MAX_PARAMETERS_BYTES = 64 * 1024  # of a function's JSON schema
MAX_PARAMETERS_DEPTH = 32
MAX_VARIABLES = 16  # of a chat template
MAX_VARIABLE_LENGTH = 1024  # characters

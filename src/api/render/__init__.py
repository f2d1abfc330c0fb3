"""A runner's events as one API's JSON: chunks of a stream, whole replies, and errors."""

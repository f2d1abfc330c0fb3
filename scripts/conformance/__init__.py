"""The matrix of features and engines."""

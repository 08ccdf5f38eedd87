"""The user's verbs on the command line. Each command is a thin wrapper of one function."""

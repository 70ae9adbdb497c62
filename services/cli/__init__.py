"""The `loupe` command, thin: parse, call, print."""

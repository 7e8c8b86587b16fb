"""A verdict in; terminal, Markdown and JSON out."""

"""How a file is best served: settings, requests that arrive, and what to recommend."""

"""Studies like the figures of EDGETUNE, one thin script each."""

"""The hospital's side of pulmolink: network, flow, reports, commands."""

CODE_VERSION = "0.1.0"
"""Version of the distribution; recorded with every result."""

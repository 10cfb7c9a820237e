"""The hospital's side of pulmolink: network, flow, reports, commands."""

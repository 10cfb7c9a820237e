"""Files an administrator installs: service units and the configuration of the demo."""

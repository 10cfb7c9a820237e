"""The steps from a received object to a delivered report, one file a step."""

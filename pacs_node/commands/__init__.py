"""The commands of `pulmolink`, one file a family; each is imported only when it runs."""

"""`python -m pacs_node`: the same as the command `pulmolink`."""

from pacs_node.cli import main

main()

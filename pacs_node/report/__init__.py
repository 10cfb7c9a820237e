"""What goes back to PACS. The only place that imports highdicom."""

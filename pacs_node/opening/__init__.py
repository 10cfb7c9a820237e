"""Untrusted files are opened in a process that may die: radiographs, waveforms and PDFs in, checked values out."""

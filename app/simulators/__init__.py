"""Honest peers over real sockets and ptys, with faults on demand."""

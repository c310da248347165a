"""Offline prediction beside the bare engine in the same run: how much of it comes out as rows."""

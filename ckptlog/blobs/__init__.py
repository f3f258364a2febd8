"""Payloads as content-addressed chunks: cut, hash, compress, pack, find, read back verified."""

"""Sans-I/O codecs: bytes in, values out."""

"""ONNX graphs of a few nodes, written out by hand: protocol buffers need no package for that.

Field numbers are those of onnx.proto3. Source: github.com/onnx/onnx, Apache-2.0.
"""

import struct

FLOAT, INT64 = 1, 7


def _varint(value):
    out = b""
    while True:
        value, low = value >> 7, value & 0x7F
        out += bytes([low | (0x80 if value else 0)])
        if not value:
            return out


def field(number, value):
    """One field: a whole number as a varint, anything else as bytes with their length."""
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    value = value.encode() if isinstance(value, str) else value
    return _varint(number << 3 | 2) + _varint(len(value)) + value


def node(kind, inputs, outputs, **whole):
    """A node whose attributes are whole numbers."""
    body = b"".join(field(1, name) for name in inputs) + b"".join(field(2, name) for name in outputs)
    body += field(4, kind)
    for name, value in whole.items():
        body += field(5, field(1, name) + field(3, value) + field(20, 2))
    return body


def tensor(name, values, dims, kind=FLOAT):
    """A constant."""
    raw = struct.pack(f"<{len(values)}{'f' if kind == FLOAT else 'q'}", *values)
    return b"".join(field(1, size) for size in dims) + field(2, kind) + field(8, name) + field(9, raw)


def value(name, kind, dims):
    """An input or output; a dimension given by a name is free."""
    shape = b"".join(field(1, field(2 if isinstance(size, str) else 1, size)) for size in dims)
    return field(1, name) + field(2, field(1, field(1, kind) + field(2, shape)))


def graph(nodes, constants, inputs, outputs, opset=13):
    """A whole model file."""
    parts = [field(1, part) for part in nodes] + [field(2, "tiny")]
    parts += [field(5, part) for part in constants]
    parts += [field(11, part) for part in inputs] + [field(12, part) for part in outputs]
    return field(1, 8) + field(7, b"".join(parts)) + field(8, field(2, opset))

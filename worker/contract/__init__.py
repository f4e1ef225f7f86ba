"""The XML both sides speak: requests, responses, dsmc's options. Knows no broker and no process."""

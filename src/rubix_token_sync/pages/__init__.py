"""What pages are made of: elements, parts, charts, one style sheet.

The page that `serve` shows and the report that a run writes are made of the same parts. They
are functions, not templates of a library, so that a sync that writes a report needs no more than
Python, and types are checked; the writer escapes every text, wherever it comes from.
"""

"""What a target holds, as files for other programs: Parquet, CSV, JSON Lines.

`tables` says what can be exported and with which columns, `rows` reads it in one moment,
`parquet` and `lines` write it, `run` puts the two together.
"""

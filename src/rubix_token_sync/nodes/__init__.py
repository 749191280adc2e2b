"""Reading one node's database: one consistent moment, leaving no trace.

    with open_snapshot("/mnt/a/node1/Rubix/rubix.db") as snapshot:
        for rows in snapshot.rows(5000):
            ...

How it is read depends on the state of the node's directory (SQLite 3.22 or later):

* rollback journal: read-only under SQLite's shared lock, which is given back before
  the first row is handed out, so that no node waits for us to commit;
* WAL without ``-wal``: ``immutable=1``, and for each batch it is proved that nothing
  was written meanwhile;
* WAL with ``-wal`` and ``-shm``: ``mode=ro&readonly_shm=1``; a private copy when no
  read mark in the ``-shm`` is usable, because SQLite would have to set one;
* ``-wal`` without ``-shm``: a private copy of both;
* hot ``-journal``: a private copy of both, recovered.

Nothing is created, changed or removed in the node's directory.
"""

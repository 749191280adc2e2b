"""Evidence that needs no trust in its maker: what a target held at one moment, signed.

`leaves` says which bytes stand for a record, `tree` hashes them (RFC 6962), `notes` and `keys`
sign the root (C2SP checkpoints, SSHSIG), `create` writes a directory, `verify` checks one,
`stamps` and `stamping` have the time stamps of a third party, `proofs` proves single records,
`against` compares with records that were read anew.
`standalone` is the checker that goes into the directory; it needs Python alone.
"""

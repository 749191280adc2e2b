"""Content of tokens: identifiers, blocks, repositories and the ways of reading them."""

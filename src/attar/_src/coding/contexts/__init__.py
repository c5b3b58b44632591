"""The coder ``context``: codes predicted from their neighbours."""

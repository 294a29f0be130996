"""The library: leaves that the stages compose. No module in here imports a sibling."""


class UserError(Exception):
    """Something the user can mend, told in one line: what (where): how to mend."""

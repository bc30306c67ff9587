"""The one exception that is the user's to mend; entry points print it as a single line."""


class UserError(ValueError):
    """Something the user can put right. The message is one line: what is wrong, where, what would be right."""

"""What may go wrong with the bus itself, as opposed to a task on it.

BusError
  - WireError       bytes that are no envelope, or an envelope that has no bytes
  - MailboxFull     the owner thread takes nothing out
  - MailboxClosed   the owner thread has ended
"""


class BusError(Exception):
    """The bus cannot be opened as asked; the message says which setting to change."""


class WireError(BusError):
    """The bytes are not an envelope of this version, or the envelope cannot be written as bytes."""


class MailboxFull(BusError):
    """Nothing was taken out of the mailbox within the deadline."""


class MailboxClosed(BusError):
    """Nobody will ever take anything out of the mailbox again."""

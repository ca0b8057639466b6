"""What ends a run early, or sends it back to ask again."""


class ExamError(Exception):
    """A run cannot start or go on; the message is for the person who started it."""


class BadQuestions(ExamError):
    """A file of questions breaks a rule; the message begins with the file and the line."""


class BadResults(ExamError):
    """A results file cannot be gone on with; the message begins with the file."""


class ServerUnusable(ExamError):
    """The server cannot give this exam, and asking again would not help."""


class GaveUp(ExamError):
    """Too many connections in a row brought no new answer."""


class ConnectionBroke(Exception):
    """The server is gone or busy: what it has not answered may be asked again."""

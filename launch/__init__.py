"""Starting the processes of one machine and keeping them alive."""

from launch.child import Command
from launch.endpoints import CannotListen, require_free, require_private
from launch.restart_policy import RestartPolicy
from launch.supervisor import Supervisor

__all__ = [
    "CannotListen",
    "Command",
    "RestartPolicy",
    "Supervisor",
    "require_free",
    "require_private",
]

"""Template tasks as data: task files, their prompts, and the check that both can work."""

from templates.errors import TaskFileError
from templates.task_file import BUILT_IN_TASKS, Answer, Source, TemplateTask, load_tasks

__all__ = ["BUILT_IN_TASKS", "Answer", "Source", "TaskFileError", "TemplateTask", "load_tasks"]

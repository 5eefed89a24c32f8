"""The commands of ``saasbase``, a file for each subject. What is heavy is imported by the command that needs it: help is quick."""

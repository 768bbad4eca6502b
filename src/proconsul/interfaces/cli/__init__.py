"""The command line: Consul's commands, flags, output and exit status.

`main.main` finds the command and imports only its module, so that a command which merely talks HTTP
starts quickly.
"""

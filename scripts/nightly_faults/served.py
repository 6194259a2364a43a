"""A server and an evaluator of a few lines, each a process of its own: nothing but sockets.

python -I -S served.py serve PORT ANSWERS     # answers item N with the Nth character of ANSWERS
python -I -S served.py ask PORT ITEMS INTO    # asks every item and writes what it was answered

The server has a child of its own, as engines do, which nobody but its keepers would end.
"""

import socket
import subprocess
import sys
import time
from pathlib import Path

HOST = "127.0.0.1"
_LOAD_S, _ANSWER_S, _WORD = 0.3, 0.001, 16


def serve(port: int, answers: str) -> None:
    """Answer for ever."""
    subprocess.Popen(["/bin/sleep", "600"])
    time.sleep(_LOAD_S)
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((HOST, port))
        listener.listen()
        while True:
            asker, _ = listener.accept()
            with asker:
                number = asker.recv(_WORD)
                time.sleep(_ANSWER_S)
                asker.sendall(answers[int(number)].encode() if number else b"")


def ask(port: int, items: int, into: Path) -> None:
    """Ask every item once."""
    answers = ""
    for number in range(items):
        with socket.create_connection((HOST, port)) as server:
            server.sendall(str(number).encode())
            answers += server.recv(_WORD).decode()
    into.write_text(answers, encoding="ascii")


if __name__ == "__main__":
    role, where, *words = sys.argv[1:]
    if role == "serve":
        serve(int(where), words[0])
    else:
        ask(int(where), int(words[0]), Path(words[1]))

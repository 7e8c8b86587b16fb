"""Send one prediction after the other on several connections until standard input closes; then print what each got.

A process of its own: threads of the test process would hold up the very code whose time is measured.
"""

import http.client
import json
import sys
import threading
import time


def send(address, path, bodies, headers, stopped, got):
    connection = http.client.HTTPConnection(address, timeout=20)
    for index in range(10**9):
        if stopped.is_set():
            return
        start = time.time_ns() // 1000
        try:
            connection.request("POST", path, bodies[index % len(bodies)], headers)
            answer = connection.getresponse()
            answer.read()
            got.append((start, time.time_ns() // 1000, answer.status, answer.headers.get("x-splitproof-route")))
        except OSError as error:
            got.append((start, time.time_ns() // 1000, str(error), None))
            connection.close()
        time.sleep(0.005)


def main():
    told = json.loads(sys.stdin.readline())
    stopped, got = threading.Event(), []
    bodies = [body.encode() for body in told["bodies"]]
    arguments = (told["address"], told["path"], bodies, told["headers"], stopped, got)
    threads = [threading.Thread(target=send, args=arguments) for _ in range(told["threads"])]
    for thread in threads:
        thread.start()
    sys.stdin.read()
    stopped.set()
    for thread in threads:
        thread.join()
    json.dump(got, sys.stdout)


main()

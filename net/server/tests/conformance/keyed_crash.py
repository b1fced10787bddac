"""Moves keyed events with the stock Python client: keyed_crash.py make|write|read SCOPE COUNT.

`write` and `read` run in processes of their own while the server is killed and started again. Each
prints its progress, a number of events, on lines of its own. The writer ends each key with an end
mark; the reader goes on until it has seen all end marks, so that a double is noticed wherever it
lies. The controller's address is in the environment variable CONTROLLER.
"""

import asyncio
import os
import sys

import pravega_client

KEYS = 40
SEGMENTS = 4
# Events under way at a time: enough to fill blocks, few enough that a kill meets the writer.
IN_FLIGHT = 300
STREAM = "keyed"


def make(manager, scope, _count):
    if not manager.create_scope(scope) or not manager.create_stream(scope, STREAM, SEGMENTS):
        raise AssertionError("scope or stream was there before")


def write(manager, scope, count):
    writer = manager.create_writer(scope, STREAM, IN_FLIGHT)
    for number in range(count):
        writer.write_event(f"{number % KEYS} {number // KEYS} {'-' * (number % 90)}", str(number % KEYS))
        if number % 50 == 0:
            print(number, flush=True)
    for key in range(KEYS):
        writer.write_event(f"{key} end", str(key))
    writer.flush()
    print(count, flush=True)


def read(manager, scope, count):
    reader = manager.create_reader_group("group" + scope, scope, STREAM).create_reader("reader")
    next_numbers = [0] * KEYS
    ended = set()

    def take(event):
        words = event.decode().split(" ")
        key = int(words[0])
        if key in ended:
            raise AssertionError(f"key {key}: {words[1]} after the end mark: doubled")
        if words[1] == "end":
            wanted = len(range(key, count, KEYS))
            if next_numbers[key] != wanted:
                raise AssertionError(f"key {key} ends after {next_numbers[key]}, not {wanted}: lost")
            ended.add(key)
            return
        if int(words[1]) != next_numbers[key]:
            raise AssertionError(f"key {key}: {words[1]} instead of {next_numbers[key]}")
        if len(words[2]) != (key + KEYS * next_numbers[key]) % 90:
            raise AssertionError(f"key {key}: {words[1]} has {len(words[2])} bytes of filler")
        next_numbers[key] += 1

    async def collect():
        while len(ended) < KEYS:
            part = await reader.get_segment_slice_async()
            for event in part:
                take(bytes(event.data()))
            reader.release_segment(part)
            print(sum(next_numbers), flush=True)

    asyncio.run(collect())


def main():
    verb = {"make": make, "write": write, "read": read}[sys.argv[1]]
    manager = pravega_client.StreamManager("tcp://" + os.environ["CONTROLLER"])
    try:
        verb(manager, sys.argv[2], int(sys.argv[3]))
    except BaseException as error:
        print(f"{sys.argv[1]}: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
        os._exit(1)
    # The client's threads may hold up an orderly end of the interpreter.
    os._exit(0)


main()

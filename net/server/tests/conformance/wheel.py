"""Checks with the stock Python client, one per call: wheel.py NAME [MARK].

The controller's address is in the environment variable CONTROLLER. A check that finds a fault
raises; the caller gives each one a process and a time limit of its own, because the client keeps
the interpreter to itself while it waits for the server. MARK tells runs on one data directory
apart: `leave` writes what `find` expects after a restart.
"""

import asyncio
import os
import sys
import time

import pravega_client

CONTROLLER = "tcp://" + os.environ["CONTROLLER"]
# Everything made by a manager lives on its threads, so each one is kept to the end.
MANAGERS = []


def manager():
    MANAGERS.append(pravega_client.StreamManager(CONTROLLER))
    return MANAGERS[-1]


def expect(found, wanted, what):
    if found != wanted:
        raise AssertionError(f"{what}: {str(found)[:300]} instead of {str(wanted)[:300]}")


def stream_of(scope, segments):
    """A manager, and a new stream `data` in a new scope."""
    streams = manager()
    expect(streams.create_scope(scope), True, "create a scope")
    expect(streams.create_stream(scope, "data", segments), True, "create a stream")
    return streams


def read_events(streams, scope, count, group):
    """The first `count` events of the stream `data`, as a new reader group delivers them."""
    reader = streams.create_reader_group(group, scope, "data").create_reader("only")

    async def collect():
        found = []
        while len(found) < count:
            part = await reader.get_segment_slice_async()
            for event in part:
                found.append(bytes(event.data()))
            reader.release_segment(part)
        # The reader ends with the process: going offline, this client now and then stands still
        # until its own time-out of 30 s, the answer unread in its socket.
        return found

    return asyncio.run(collect())


def scopes(mark):
    """Scopes are made once, listed, and deleted once."""
    streams = manager()
    name = "scopes" + mark
    expect(streams.create_scope(name), True, "create")
    expect(streams.create_scope(name), False, "create a second time")
    expect(name in streams.list_scope(), True, "is listed")
    expect(streams.delete_scope(name), True, "delete")
    expect(name in streams.list_scope(), False, "is listed after it was deleted")
    expect(streams.delete_scope(name), False, "delete a second time")


def streams(mark):
    """Streams are made once, listed, sealed, deleted and made again."""
    scope = "streams" + mark
    admin = stream_of(scope, 3)
    expect(admin.create_stream(scope, "data", 3), False, "create a second time")
    expect(admin.create_stream(scope, "other", 1), True, "create another")
    expect(sorted(admin.list_stream(scope)), ["data", "other"], "list")
    expect(admin.seal_stream(scope, "data"), True, "seal")
    expect(admin.delete_stream(scope, "data"), True, "delete")
    expect(admin.list_stream(scope), ["other"], "list after a deletion")
    expect(admin.create_stream(scope, "data", 2), True, "create again")
    writer = admin.create_writer(scope, "data")
    writer.write_event("a new life")
    writer.flush()
    expect(read_events(admin, scope, 1, "group"), [b"a new life"], "events after re-creation")


def tags(mark):
    """Tags are none at first and those of the last update afterwards."""
    scope = "tags" + mark
    admin = stream_of(scope, 1)
    expect(admin.get_stream_tags(scope, "data"), [], "tags of a new stream")
    fixed = pravega_client.StreamScalingPolicy.fixed_scaling_policy(1)
    for wanted in (["one"], ["three", "two"]):
        done = admin.update_stream_with_policy(scope, "data", fixed, tags=wanted)
        expect(done, True, "update")
        expect(sorted(admin.get_stream_tags(scope, "data")), wanted, "tags")


def events(mark):
    """Events come back in order, whatever their length."""
    scope = "events" + mark
    admin = stream_of(scope, 1)
    written = [b"%d:" % number + b"x" * (number * 37 % 5000) for number in range(300)]
    writer = admin.create_writer(scope, "data")
    for event in written:
        writer.write_event_bytes(event)
    writer.flush()
    expect(read_events(admin, scope, len(written), "group"), written, "events")
    expect(read_events(admin, scope, len(written), "second"), written, "events, second group")


def keys(mark):
    """Over four segments the events of each key come back once and in order."""
    scope = "keys" + mark
    admin = stream_of(scope, 4)
    writer = admin.create_writer(scope, "data", 100)
    for number in range(3000):
        writer.write_event(f"{number % 30} {number // 30}", f"key {number % 30}")
    writer.flush()
    found = {}
    for event in read_events(admin, scope, 3000, "group"):
        key, number = event.decode().split()
        found.setdefault(int(key), []).append(int(number))
    expect(found, {key: list(range(100)) for key in range(30)}, "numbers by key")


def transactions(mark):
    """Committed events are delivered, aborted ones are not, and a closed transaction takes none."""
    scope = "transactions" + mark
    admin = stream_of(scope, 2)
    writer = admin.create_transaction_writer(scope, "data", 7)
    for round_number in range(3):
        for word in ("aborted", "committed"):
            transaction = writer.begin_txn()
            expect(transaction.is_open(), True, "a new transaction is open")
            for number in range(5):
                transaction.write_event(f"{word} {round_number} {number}", "the key")
            transaction.abort() if word == "aborted" else transaction.commit()
            limit = time.monotonic() + 20
            while transaction.is_open():
                if time.monotonic() > limit:
                    raise AssertionError(f"a transaction is open 20 s after it was {word}")
                time.sleep(0.02)
            try:
                transaction.write_event("too late", "the key")
            except pravega_client.TxnFailedException:
                continue
            raise AssertionError(f"a transaction takes an event after it was {word}")
    wanted = [b"committed %d %d" % (turn, number) for turn in range(3) for number in range(5)]
    expect(read_events(admin, scope, 15, "group"), wanted, "events")


def byte_stream(mark):
    """Bytes are read where they were written; truncation moves the head."""
    scope = "bytes" + mark
    admin = stream_of(scope, 1)
    content = bytes(range(256)) * 40
    stream = admin.create_byte_stream(scope, "data")
    stream.write(content[:5000])
    stream.write(content[5000:])
    stream.flush()
    expect(stream.current_tail_offset(), len(content), "tail")

    def read(count):
        found = b""
        while len(found) < count:
            part = bytearray(count - len(found))
            size = stream.readinto(part)
            if size == 0:
                raise AssertionError(f"nothing to read at {stream.tell()}")
            found += bytes(part[:size])
        return found

    expect(read(len(content)), content, "bytes")
    stream.seek(777, 0)
    expect(read(100), content[777:877], "bytes after seek")
    stream.truncate(1000)
    expect(stream.current_head_offset(), 1000, "head after truncation")


def large_event(mark):
    """An event of 9 MiB, beyond what one append holds, comes back between its neighbours."""
    scope = "large" + mark
    admin = stream_of(scope, 1)
    large = bytes(number * 31 % 251 for number in range(4096)) * (9 * 256)
    writer = admin.create_writer(scope, "data")
    for event in (b"before", large, b"after"):
        writer.write_event_bytes(event, "key")
        writer.flush()
    found = read_events(admin, scope, 3, "group")
    expect([len(event) for event in found], [6, 9 << 20, 5], "lengths")
    expect(found == [b"before", large, b"after"], True, "bytes are as written")


def leave(mark):
    """Leaves a stream and an open group position for `find`."""
    scope = "left" + mark
    admin = stream_of(scope, 2)
    writer = admin.create_writer(scope, "data")
    for number in range(500):
        writer.write_event(f"left {number}", "key")
    writer.flush()
    wanted = [b"left %d" % number for number in range(500)]
    expect(read_events(admin, scope, 500, "group"), wanted, "events before the restart")


def find(mark):
    """What `leave` wrote is there, can be read and appended to."""
    scope = "left" + mark
    admin = manager()
    expect(scope in admin.list_scope(), True, "the scope is listed")
    expect(admin.create_stream(scope, "data", 2), False, "create the stream that is there")
    writer = admin.create_writer(scope, "data")
    for number in range(500, 600):
        writer.write_event(f"left {number}", "key")
    writer.flush()
    wanted = [b"left %d" % number for number in range(600)]
    expect(read_events(admin, scope, 600, "after" + mark), wanted, "events after the restart")


CHECKS = [
    scopes, streams, tags, events, keys, transactions, byte_stream, large_event, leave, find,
]


def main():
    known = {check.__name__: check for check in CHECKS}
    check = known[sys.argv[1]]
    mark = sys.argv[2] if len(sys.argv) > 2 else str(time.time_ns())
    try:
        check(mark)
    except BaseException as error:
        print(f"{check.__name__}: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
        os._exit(1)
    # The client's threads may hold up an orderly end of the interpreter.
    os._exit(0)


main()

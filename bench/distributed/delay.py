# Carries packets between two network devices, each way later by a fixed time: what tc's netem does, for kernels without it.
# Standard library only, Linux. delay.py DEVICE DEVICE MILLISECONDS
import collections, select, socket, sys, time

first, second, delay = sys.argv[1], sys.argv[2], float(sys.argv[3]) / 1000
sockets = []
for name in (first, second):
    s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 26)
    s.bind((name, 0))
    s.setblocking(False)
    sockets.append(s)
queues = [collections.deque(), collections.deque()]
buffer_size = 1 << 17
while True:
    now = time.perf_counter()
    nearest = min((q[0][0] for q in queues if q), default=None)
    # Short waits are not left to the scheduler, which wakes too late.
    wait = 0.05 if nearest is None else max(0.0, nearest - now - 0.0002)
    ready, _, _ = select.select(sockets, [], [], wait)
    for s in ready:
        side = 0 if s is sockets[0] else 1
        for _ in range(64):
            try:
                packet, address = s.recvfrom(buffer_size)
            except BlockingIOError:
                break
            if address[2] != socket.PACKET_OUTGOING:
                queues[1 - side].append((time.perf_counter() + delay, packet))
    now = time.perf_counter()
    for side in (0, 1):
        q = queues[side]
        while q and q[0][0] <= now:
            try:
                sockets[side].send(q[0][1])
            except BlockingIOError:
                break
            q.popleft()

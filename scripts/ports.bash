# Sourced by scripts/serving/*: ports on loopback for servers that take a while until they listen.

# free_ports COUNT: ports that nobody has. They are none of those that the kernel gives whoever asks for any, or connects
# to others; and whoever looks for some at the same time, as another process, begins at another number.
free_ports() {
    "${python:-python3}" -c '
import itertools, os, socket, sys
with open("/proc/sys/net/ipv4/ip_local_port_range") as file:
    first, behind = 10_000, int(file.read().split()[0])
places = (first + (8 * os.getpid() + step) % (behind - first) for step in range(behind - first))
found = []
for port in itertools.chain(places, itertools.repeat(0)):  # where there is none the kernel gives one
    try:
        found.append(socket.create_server(("127.0.0.1", port)))
    except OSError:
        continue
    if len(found) == int(sys.argv[1]):
        break
print(*(one.getsockname()[1] for one in found))' "$1"
}

#!/usr/bin/env bash
# Runs a program on two ranks that see each other through a network of their own: hosts.sh GBIT MILLISECONDS PROGRAM…
# Each rank lies in a network namespace; the link's rate is set with tc (tbf), its delay, one way, by delay.py, since many kernels
# lack tc's netem. Needs root, iproute2, ethtool, python3 and Open MPI.
set -euo pipefail
rate=$1 delay=$2
shift 2
id=$$
a=fera-a$id b=fera-b$id middle=fera-m$id agent=$(mktemp)
forwarder=
end() {
  [ -z "$forwarder" ] || kill "$forwarder" 2> /dev/null || true
  for space in "$a" "$b" "$middle"; do ip netns del "$space" 2> /dev/null || true; done
  rm -f "$agent"
}
trap end EXIT
for space in "$a" "$b" "$middle"; do
  ip netns add "$space"
  ip -n "$space" link set lo up
done
side=0
for space in "$a" "$b"; do
  side=$((side + 1))
  ip link add host netns "$space" mtu 65000 type veth peer name "port$side" netns "$middle"
  ip -n "$middle" link set "port$side" mtu 65000 up
  ip -n "$space" addr add "10.77.0.$side/24" dev host
  ip -n "$space" link set host up
  # Packets of 65 kB as they are: the carrier neither cuts them nor fills in checksums.
  ip netns exec "$space" ethtool -K host tx off rx off tso off gso off gro off > /dev/null
  ip netns exec "$middle" ethtool -K "port$side" tx off rx off tso off gso off gro off > /dev/null
  ip netns exec "$space" tc qdisc add dev host root tbf rate "${rate}gbit" burst 300kb limit 32mb
done
ip netns exec "$middle" python3 "$(dirname "$0")/delay.py" port1 port2 "$delay" &
forwarder=$!
# What mpirun takes for ssh: HOST COMMAND…
printf '#!/bin/sh\nshift\nexec ip netns exec %s sh -c "$*"\n' "$b" > "$agent"
chmod +x "$agent"
network=10.77.0.0/24
ip netns exec "$a" ping -c 2 -q 10.77.0.2 >&2 || true
ip netns exec "$a" mpirun --mca plm_rsh_agent "$agent" --mca oob_tcp_if_include $network --mca btl tcp,self \
  --mca btl_tcp_if_include $network -host 10.77.0.1:1,10.77.0.2:1 -n 2 --bind-to none "$@"

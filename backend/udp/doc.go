// Package udp carries packets to the peers in user space: one raw IP packet is the whole payload of one UDP datagram.
// It works where the kernel has no tunnel of its own, and is meant to be fast there: packets travel in bursts, and bulk
// payload is never copied in user space.
//
// Each worker owns one queue of the TUN device and one socket of each family, and carries both directions of the flows
// that the kernel steers there, so that no packet needs a lock and none overtakes another of its flow:
//
//	                    ┌──────────────────────── worker ────────────────────────┐
//	        packet with │ router          segment              send queue        │ sendmmsg
//	 TUN ──virtio-net──▶│ table, TTL, ──▶ headers written, ──▶ runs of equal  ─E─▶│─UDP_SEGMENT─▶ socket
//	queue   header      │ ECN, MTU        payload in place     size, one peer    │
//	  ▲                 │   │ ICMP errors                                        │
//	  │◀────────────────│◀──┘                                                    │ recvmmsg
//	  └──one writev ◀───│ coalescer ◀── router: is the sender the peer of the ◀D─│◀─UDP_GRO───── socket
//	    for each run    │ headers alike, source, is the destination ours? ECN    │
//	                    └────────────────────────────────────────────────────────┘
//
// Set swaps an immutable table that all workers read; it waits for none of them. Encryption would stand at E, where a
// datagram has its peer and its final size and is still a list of pieces, and at D, before anything in a datagram is
// believed; the peer in the table would carry the keys.
package udp

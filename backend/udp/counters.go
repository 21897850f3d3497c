package udp

import "sync/atomic"

// counter is one of the numbers that a worker keeps.
type counter uint8

const (
	passed counter = iota // no number, says that nothing is wrong

	sentPackets
	sentBytes
	receivedPackets
	receivedBytes
	icmpSent
	icmpWithheld
	icmpFailed

	dropMalformed
	dropNoRoute
	dropExpired
	dropTooBig
	dropSend
	dropSender
	dropSource
	dropDestination
	dropCongestion
	dropWrite
	counterCount
)

var counterNames = [counterCount]string{
	sentPackets:     "sent packets",
	sentBytes:       "sent bytes",
	receivedPackets: "received packets",
	receivedBytes:   "received bytes",
	icmpSent:        "ICMP errors sent",
	icmpWithheld:    "ICMP errors withheld",
	icmpFailed:      "ICMP errors not sent",
	dropMalformed:   "dropped: malformed",
	dropNoRoute:     "dropped: no lease for the destination",
	dropExpired:     "dropped: time to live exceeded",
	dropTooBig:      "dropped: too big for the path",
	dropSend:        "dropped: not sent by the socket",
	dropSender:      "dropped: sender is no peer",
	dropSource:      "dropped: source is not the sender's",
	dropDestination: "dropped: destination is not ours",
	dropCongestion:  "dropped: congestion mark on a packet that cannot carry it",
	dropWrite:       "dropped: not taken by the device",
}

// counters are written by one worker and read by anyone.
type counters [counterCount]atomic.Uint64

func (c *counters) add(what counter, n int) { c[what].Add(uint64(n)) }

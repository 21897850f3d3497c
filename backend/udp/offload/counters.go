package offload

// Names of the counters in the order of the programs (the enum in datapath.c). What is carried here counts under the
// same names as what user space carries; the others say why packets were left to it.
var names = []string{
	"sent packets",
	"sent bytes",
	"received packets",
	"received bytes",
	"dropped: no memory for the outer headers",
	"left to user space: sending, IP options or an odd length",
	"left to user space: sending, time to live exceeded",
	"left to user space: sending, no lease for the destination",
	"left to user space: sending, the peer takes none from the kernel",
	"left to user space: sending, too big",
	"left to user space: sending, no usable route to the peer, or too big for it",
	"left to user space: sending, tunnel inside the tunnel, or no memory",
	"left to user space: received, sent by user space",
	"left to user space: received, malformed or IP options",
	"left to user space: received, sender is no peer",
	"left to user space: received, source is not the sender's",
	"left to user space: received, destination is not ours",
	"left to user space: received, congestion mark on a packet that cannot carry it",
	"left to user space: received, no memory",
}

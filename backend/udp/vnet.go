package udp

import "encoding/binary"

// vnetSize is the length of a struct virtio_net_hdr (include/uapi/linux/virtio_net.h), which stands before each packet
// that is read from or written to the device. Its numbers are in the byte order of the machine.
const vnetSize = 10

// Values of the header.
const (
	vnetNeedsChecksum = 1 // flags: the checksum field holds the sum of the pseudo header only

	gsoNone  = 0
	gsoTCP4  = 1
	gsoTCP6  = 4
	gsoUDP   = 5    // each segment a datagram of its own
	gsoECN   = 0x80 // bit: the first segment alone carries CWR
	gsoKinds = 0x7f
)

// vnet is the header in the kernel's terms: lengths in bytes from the start of the packet.
type vnet struct {
	flags          uint8
	gso            uint8
	headers        uint16 // a hint only
	segment        uint16 // payload of each segment
	checksumStart  uint16
	checksumOffset uint16 // from checksumStart
}

func parseVnet(b []byte) vnet {
	_ = b[vnetSize-1]
	n := binary.NativeEndian
	return vnet{b[0], b[1], n.Uint16(b[2:]), n.Uint16(b[4:]), n.Uint16(b[6:]), n.Uint16(b[8:])}
}

func (v vnet) put(b []byte) {
	_ = b[vnetSize-1]
	n := binary.NativeEndian
	b[0], b[1] = v.flags, v.gso
	n.PutUint16(b[2:], v.headers)
	n.PutUint16(b[4:], v.segment)
	n.PutUint16(b[6:], v.checksumStart)
	n.PutUint16(b[8:], v.checksumOffset)
}

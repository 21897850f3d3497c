package wireguard

import (
	"net/netip"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"flanneld/backend"
)

// Sessions implements backend.Encrypted, as of the last look at the devices.
func (b *Backend) Sessions() map[netip.Prefix]backend.Session {
	b.mu.Lock()
	defer b.mu.Unlock()
	now, out := time.Now(), map[netip.Prefix]backend.Session{}
	for name, w := range b.wires {
		planned := b.plan.devices[name].peers
		for _, p := range w.seen {
			for _, subnet := range planned[p.PublicKey].allowed {
				out[subnet] = backend.Session{
					Handshake: p.LastHandshakeTime, Endpoint: addrPort(p.Endpoint),
					Received: p.ReceiveBytes, Sent: p.TransmitBytes, Silent: w.calls.silent(p.PublicKey, now),
				}
			}
		}
	}
	return out
}

// calls tell which peers are called in vain. A peer without a session that nobody sends to is well: WireGuard says
// nothing until then.
type calls map[wgtypes.Key]call

type call struct {
	sent  int64     // bytes, while there was a session
	since time.Time // when more were sent without one; zero: none were
}

// note takes in what a device says of a peer.
func (c calls) note(p wgtypes.Peer, now time.Time) {
	before, known := c[p.PublicKey]
	if p.TransmitBytes < before.sent {
		before.sent = 0 // the device was made anew, and counts anew
	}
	switch {
	case now.Sub(p.LastHandshakeTime) <= sessionTime, !known:
		c[p.PublicKey] = call{sent: p.TransmitBytes}
	case before.since.IsZero() && p.TransmitBytes > before.sent:
		before.since = now
		c[p.PublicKey] = before
	}
}

// silent reports whether a peer had time to answer, and has not.
func (c calls) silent(key wgtypes.Key, now time.Time) bool {
	since := c[key].since
	return !since.IsZero() && now.Sub(since) >= answerTime
}

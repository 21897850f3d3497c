package wireguard

import (
	"net/netip"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"
)

const (
	// sessionTime is how long the keys of a handshake are good for (REJECT_AFTER_TIME of the WireGuard protocol).
	sessionTime = 180 * time.Second
	// answerTime is how long a peer that lives may take to answer a packet: it sends a keepalive 10 s after the
	// last one that it has received (KEEPALIVE_TIMEOUT).
	answerTime = 15 * time.Second
)

// roamers are the peers whose packets come from another endpoint than their lease says. WireGuard sends to where the
// last authentic packet came from, and so it must be while a peer moves or sits behind a translation of addresses. But
// where nothing comes back from there, somebody may have changed the endpoint, or the peer has moved back.
type roamers map[wgtypes.Key]*roamer

type roamer struct {
	endpoint netip.AddrPort
	received int64
	sent     int64
	silent   time.Time // since when there is no answer; zero: there is one
}

// excuse decides for one peer whether its endpoint is to be left as it is.
func (r roamers) excuse(p wgtypes.Peer, now time.Time) bool {
	at := addrPort(p.Endpoint)
	if now.Sub(p.LastHandshakeTime) > sessionTime {
		delete(r, p.PublicKey)
		return false
	}
	s := r[p.PublicKey]
	switch {
	case s == nil || s.endpoint != at || s.received != p.ReceiveBytes:
		r[p.PublicKey] = &roamer{endpoint: at, received: p.ReceiveBytes, sent: p.TransmitBytes}
	case s.sent == p.TransmitBytes:
	case s.silent.IsZero():
		s.silent = now
	case now.Sub(s.silent) >= answerTime:
		delete(r, p.PublicKey)
		return false
	}
	return true
}

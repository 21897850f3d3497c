package wireguard

import (
	"bytes"
	"fmt"
	"net/netip"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"
)

// wire is one device and what was last set of it. One goroutine at a time may use it.
type wire struct {
	name   string
	tunnel tunnel

	last  *settings      // as it was left; nil: not known
	seen  []wgtypes.Peer // as of the last look
	roam  roamers
	calls calls
	given map[wgtypes.Key]netip.AddrPort // endpoints that were set last
	late  []wgtypes.Key                  // new peers that are not greeted yet
}

func newWire(name string, t tunnel) *wire {
	return &wire{name: name, tunnel: t, roam: roamers{}, calls: calls{}, given: map[wgtypes.Key]netip.AddrPort{}}
}

// sync makes the device be as wanted. look says that others may have changed it; what they have is returned. After an
// error the next call looks.
func (w *wire) sync(want settings, look bool, now time.Time) (drift []string, err error) {
	var have settings
	if last := w.last; look || last == nil {
		if have, err = w.look(want, now); err != nil {
			w.last = nil
			return nil, err
		}
		if last != nil {
			drift = differences(have, *last)
		}
	} else {
		have = *last
	}
	w.last = nil
	if c, ok := change(have, want); ok {
		if err := w.tunnel.Configure(c); err != nil {
			return drift, fmt.Errorf("configure device %s: %w", w.name, err)
		}
		w.note(c, have, want)
	}
	w.last = &want
	return drift, nil
}

// look reads the device. Endpoints of peers that roam are returned as they are wanted.
func (w *wire) look(want settings, now time.Time) (settings, error) {
	d, err := w.tunnel.Device()
	if err != nil {
		return settings{}, fmt.Errorf("read device %s: %w", w.name, err)
	}
	w.seen = d.Peers
	have := read(d)
	for _, p := range d.Peers {
		w.calls.note(p, now)
		wanted, ok := want.peers[p.PublicKey]
		is := have.peers[p.PublicKey]
		if !ok || is.endpoint == wanted.endpoint {
			delete(w.roam, p.PublicKey)
			continue
		}
		if given, ok := w.given[p.PublicKey]; ok && given != wanted.endpoint {
			continue // the lease has changed
		}
		if w.roam.excuse(p, now) {
			is.endpoint = wanted.endpoint
			have.peers[p.PublicKey] = is
		}
	}
	return have, nil
}

// note remembers what was set, and greets peers: new ones, and those that have moved if their sessions have ended with
// the last run.
func (w *wire) note(c wgtypes.Config, have, want settings) {
	own := want.private.PublicKey()
	var now []wgtypes.Key
	for _, p := range c.Peers {
		_, known := have.peers[p.PublicKey]
		switch {
		case p.Remove:
			delete(w.given, p.PublicKey)
			delete(w.roam, p.PublicKey)
			delete(w.calls, p.PublicKey)
			continue
		case p.Endpoint == nil:
			continue
		case known && w.tunnel.lasts():
		case known || w.turn(own, p.PublicKey):
			now = append(now, p.PublicKey)
		}
		w.given[p.PublicKey] = addrPort(p.Endpoint)
	}
	w.tunnel.greet(now, want.keepalive())
}

// turn reports whether this host greets a peer now; else greetLate does. Two hosts must not greet each other at once:
// both handshakes would fail, and the next ones come after 5 s (REKEY_TIMEOUT). So the lower one of the two keys greets
// first.
func (w *wire) turn(own, peer wgtypes.Key) bool {
	first := bytes.Compare(own[:], peer[:]) < 0
	if !first {
		w.late = append(w.late, peer)
	}
	return first
}

// greetLate greets the peers that were to be greeted later. One that has a session already gets a packet by it.
func (w *wire) greetLate(want settings) {
	w.tunnel.greet(w.late, want.keepalive())
	w.late = nil
}

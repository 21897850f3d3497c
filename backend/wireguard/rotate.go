package wireguard

import (
	"context"
	"errors"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"
)

// settlePause is the time that peers have to take in a new public key before this host uses its private key. Who is
// later makes the handshake by itself then.
const settlePause = 500 * time.Millisecond

// Rotate gives this host a new key pair, and returns the public key. publish asks for the record to be written again.
// Sessions end: a device has one key.
//
//	files written ──▶ record published ──▶ peers know the key ──▶ devices have it ──▶ handshakes with all peers
//
// A daemon that ends between any two steps starts with the new key. If the files cannot be written nothing is changed.
func (b *Backend) Rotate(ctx context.Context, publish func()) (public string, err error) {
	if !b.rotating.TryLock() {
		return "", errors.New("the key is being replaced")
	}
	defer b.rotating.Unlock()
	private, err := wgtypes.GeneratePrivateKey()
	if err != nil {
		return "", err
	}
	if err := keepKey(b.files, private); err != nil {
		return "", errors.Join(err, keepKey(b.files, b.key()))
	}
	key := private.PublicKey()
	b.public.Store(&key)
	publish()
	select {
	case <-ctx.Done(): // the operator is gone, the record is not
	case <-time.After(settlePause):
	}
	b.host.Log.Info("private key replaced", "public", key.String())
	return key.String(), b.use(private)
}

// key is the private key in use.
func (b *Backend) key() wgtypes.Key {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.private
}

// use gives the devices a private key, and starts handshakes with all peers.
func (b *Backend) use(private wgtypes.Key) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.private = private
	if b.plan.devices == nil || b.closed {
		return nil // the first pass uses it
	}
	b.plan = b.options().desired(host{b.private, b.networks, b.from}, b.peers)
	err := b.syncLocked(false)
	for name, w := range b.wires {
		want := b.plan.devices[name]
		w.tunnel.greet(sortedKeys(want.peers), want.keepalive())
	}
	return err
}

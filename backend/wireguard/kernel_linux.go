package wireguard

import (
	"fmt"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"
)

// kernelEngine has the devices of the kernel.
type kernelEngine struct{ client *wgctrl.Client }

func newKernelEngine() (*kernelEngine, error) {
	c, err := wgctrl.New()
	if err != nil {
		return nil, fmt.Errorf("talk to the kernel's WireGuard: %w", err)
	}
	return &kernelEngine{c}, nil
}

func (e *kernelEngine) kind() string { return "wireguard" }

func (e *kernelEngine) open(name string, _ int) (tunnel, error) {
	return kernelTunnel{e.client, name}, nil
}

func (e *kernelEngine) rerouted() {} // the kernel sees it by itself

func (e *kernelEngine) close() { _ = e.client.Close() }

// kernelTunnel is a device of the kernel, whose sessions live on without this process.
type kernelTunnel struct {
	client *wgctrl.Client
	name   string
}

func (t kernelTunnel) Device() (*wgtypes.Device, error) { return t.client.Device(t.name) }

func (t kernelTunnel) Configure(c wgtypes.Config) error { return t.client.ConfigureDevice(t.name, c) }

// greet turns keepalives on for a moment: the kernel sends the first one at once, and makes a session for it.
func (t kernelTunnel) greet(peers []wgtypes.Key, keepalive time.Duration) {
	if len(peers) == 0 {
		return
	}
	for _, interval := range []time.Duration{0, time.Second, keepalive} {
		var c wgtypes.Config
		for _, key := range peers {
			c.Peers = append(c.Peers, wgtypes.PeerConfig{PublicKey: key, UpdateOnly: true,
				PersistentKeepaliveInterval: &interval})
		}
		_ = t.client.ConfigureDevice(t.name, c) // what is left of it the next look repairs
	}
}

func (t kernelTunnel) lasts() bool { return true }
